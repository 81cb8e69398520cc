use std::any::type_name;
use std::ffi::OsString;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::check::{Check, Report};
use crate::exit::Exit;
use crate::loaded::Loaded;
use crate::problem::Error;
use crate::schema::{self, Schema};
use crate::work::Work;
use crate::{env, finish, flags, print};

/// Loads a configuration: built-in defaults < files < profile files < `*_FILE` secrets < environment < flags.
///
/// A loader reads the files it is told of and nothing else of the process: arguments and environment are handed to it,
/// so that tests hand it theirs.
///
/// ```
/// use mainspring_config::{Duration, Loader};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     topic: String,
///     work: Duration,
/// }
///
/// let env = [("ORDERS_TOPIC".into(), "memory://orders".into())];
/// let args = ["--set".into(), "work=1m30s".into()];
/// let loaded = Loader::new("orders", "0.1.0").env(env).args(args).load::<Config>().unwrap();
/// assert_eq!(loaded.config().topic, "memory://orders");
/// assert_eq!(loaded.config().work, Duration::from_secs(90));
/// ```
#[derive(Clone)]
pub struct Loader {
    name: String,
    version: String,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: PathBuf,
    checks: Vec<Registered>,
}

/// Reads a section, with the values that the other one may be read from, and says what is wrong with it; none if it
/// cannot be read.
pub(crate) type RunCheck = Arc<dyn Fn(&Json, &[Json]) -> Option<Report> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Registered {
    /// The section's name; none for the configuration as a whole.
    pub(crate) section: Option<&'static str>,
    /// The section that the check has to know besides.
    pub(crate) other: Option<&'static str>,
    pub(crate) run: RunCheck,
}

impl Loader {
    /// Makes a loader for a service. Its variables begin with the name in capitals: `order-book` has `ORDER_BOOK_…`.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            directory: FilePath::new("/etc").join(&name),
            name,
            version: version.into(),
            args: Vec::new(),
            env: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// Hands over the command line, without the program's own name. Default: none.
    pub fn args(mut self, args: impl IntoIterator<Item = OsString>) -> Self {
        self.args = args.into_iter().collect();
        self
    }

    /// Hands over the environment. Default: none.
    pub fn env(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env = vars.into_iter().collect();
        self
    }

    /// Sets where `config.{toml,yaml,yml,json}` is looked for when there is no `--config`. Default: `/etc/<name>`.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Registers the check of a section: of every value, wherever it stands, whose type carries
    /// `#[schemars(extend("x-section" = name))]`.
    pub fn section<T: Check + DeserializeOwned + 'static>(mut self, name: &'static str) -> Self {
        self.checks.push(Registered { section: Some(name), other: None, run: run::<T>() });
        self
    }

    /// Registers a check of the section `name`, which may be as small as one value, that has to know the section
    /// `other` too; that one has its defaults where the configuration has none.
    pub fn section_with<T, O>(mut self, name: &'static str, other: &'static str, check: fn(&T, &O, &mut Report)) -> Self
    where
        T: DeserializeOwned + 'static,
        O: DeserializeOwned + Default + 'static,
    {
        let run = move |section: &Json, others: &[Json]| {
            let section: T = finish::read(section).ok()?;
            let other: O = others.iter().find_map(|json| finish::read(json).ok()).unwrap_or_default();
            let mut report = Report::default();
            check(&section, &other, &mut report);
            Some(report)
        };
        self.checks.push(Registered { section: Some(name), other: Some(other), run: Arc::new(run) });
        self
    }

    /// Registers a check of the configuration as a whole.
    pub fn check<T: Check + DeserializeOwned + 'static>(mut self) -> Self {
        self.checks.push(Registered { section: None, other: None, run: run::<T>() });
        self
    }

    /// Loads, checks and returns the configuration.
    ///
    /// # Errors
    /// [`Exit::Done`] when a flag asked for a text instead, [`Exit::Usage`] for a mistake on the command line, and
    /// [`Exit::Faults`] with every problem that was found. Nothing but files is opened.
    ///
    /// # Panics
    /// If the schema of `C` is malformed (an `x-env` that is no list, …) or its default cannot be serialized: mistakes in
    /// the program that every start shows.
    pub fn load<C>(self) -> Result<Loaded<C>, Exit>
    where
        C: Serialize + DeserializeOwned + JsonSchema + Default,
    {
        let prefix = env::prefix(&self.name);
        let flags = flags::parse(&self.name, &self.version, &prefix, self.args)?;
        let json_schema = schema::generate::<C>();
        if flags.schema {
            return Err(Exit::done(&format!("{json_schema:#}")));
        }
        let schema = Schema::of(&json_schema);
        let defaults = match serde_json::to_value(C::default()) {
            Ok(defaults) => defaults,
            Err(error) => panic!("the default of {} cannot be serialized: {error}", type_name::<C>()),
        };
        let mut work = Work::new(&schema, prefix);
        let vars = env::collect(self.env, &work.prefix, &mut work.problems);
        let layers = work.layers(&defaults, &flags, &vars, &self.directory);
        let settled = work.merge(&layers);
        let mut json = work.fill(&settled, &defaults);
        let mut value: Option<C> =
            finish::read_all(&mut json, &defaults, &settled, |refusal| work.refused(&settled, refusal));
        if value.is_some() {
            work.check(&self.checks, &settled, &json);
        }
        let Work { vault, problems, notices, .. } = work;
        let Some(config) = value.take().filter(|_| problems.is_empty()) else {
            return Err(Exit::Faults(Error::new(problems)));
        };
        let effective = serde_json::to_value(&config).unwrap_or_default();
        let printed = print::print(&schema, &settled, &vault.mask(&settled.json), &effective);
        match (flags.check, flags.print) {
            (true, false) => {
                let notices: String = notices.iter().map(|notice| format!("notice: {notice}\n")).collect();
                return Err(Exit::done(&format!("{notices}configuration is valid")));
            }
            // What is printed stays TOML.
            (true, true) => return Err(Exit::Done(format!("{printed}# configuration is valid\n"))),
            (false, true) => return Err(Exit::Done(printed)),
            (false, false) => {}
        }
        Ok(Loaded::new(config, json, printed, settled, notices))
    }
}

impl std::fmt::Debug for Loader {
    /// Leaves out arguments and environment: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

fn run<T: Check + DeserializeOwned>() -> RunCheck {
    Arc::new(|json, _| {
        let section: T = finish::read(json).ok()?;
        let mut report = Report::default();
        section.check(&mut report);
        Some(report)
    })
}
