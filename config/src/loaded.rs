use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::finish;
use crate::path::Path;
use crate::settle::Settled;

/// A configuration that has been read and checked.
pub struct Loaded<C> {
    config: C,
    /// Real secrets inside: never printed.
    json: Json,
    printed: String,
    settled: Settled,
    notices: Vec<String>,
}

impl<C> Loaded<C> {
    pub(crate) fn new(config: C, json: Json, printed: String, settled: Settled, notices: Vec<String>) -> Self {
        Self { config, json, printed, settled, notices }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// Gives the configuration away.
    pub fn into_config(self) -> C {
        self.config
    }

    /// Reads a section by its `x-section` name, from the first place it stands at, with real secrets inside. `None` when
    /// the configuration has no such section, or it is no `T`.
    pub fn get<T: DeserializeOwned>(&self, section: &str) -> Option<T> {
        let candidates = self.settled.section(self.place(section)?, &self.json);
        candidates.iter().find_map(|json| finish::read(json).ok())
    }

    /// Returns the dotted path of the first place a section stands at; `-` is the top.
    pub fn path_of(&self, section: &str) -> Option<String> {
        self.place(section).map(Path::to_string)
    }

    /// Returns where the value of a dotted key came from: `config.toml:4`, `env ORDERS_TOPIC`, `default`.
    pub fn origin(&self, key: &str) -> String {
        self.settled.origin(&Path::default().join(key))
    }

    /// Returns what `--print-config` prints: every key, its value and where it came from, secrets as `***`.
    pub fn printed(&self) -> &str {
        &self.printed
    }

    /// Returns what is worth a line in the log at the start: names that were accepted and do nothing, secrets given by
    /// flag, profiles without a file.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Returns the values alone, to see later what another load has changed.
    pub fn values(&self) -> Values {
        Values(self.json.clone())
    }

    fn place(&self, section: &str) -> Option<&Path> {
        self.settled.sections.iter().find(|(name, _)| name == section).map(|(_, path)| path)
    }
}

/// What a configuration said at one time. It cannot be looked into: secrets are inside.
#[derive(Clone)]
pub struct Values(Json);

impl Values {
    /// Returns the dotted keys that have another value in `other`, or none. Lists are one value.
    ///
    /// ```
    /// # use mainspring_config::{Loader, Secret};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    /// # struct Config { topic: String, work: mainspring_config::Duration }
    /// let load = |work: &str| {
    ///     let args = ["--set".into(), "topic=a".into(), "--set".into(), format!("work={work}").into()];
    ///     Loader::new("orders", "0.1.0").args(args).load::<Config>().unwrap().values()
    /// };
    /// assert_eq!(load("1s").changes(&load("2s")), ["work"]);
    /// ```
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        compare(&Path::default(), Some(&self.0), Some(&other.0), &mut changes);
        changes
    }
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

fn compare(at: &Path, one: Option<&Json>, other: Option<&Json>, changes: &mut Vec<String>) {
    let (a, b) = match (one, other) {
        (Some(Json::Object(a)), Some(Json::Object(b))) => (a, b),
        (one, other) => {
            if one != other {
                changes.push(at.to_string());
            }
            return;
        }
    };
    for (key, value) in a {
        compare(&at.key(key), Some(value), b.get(key), changes);
    }
    for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
        compare(&at.key(key), None, Some(value), changes);
    }
}

impl<C> std::fmt::Debug for Loaded<C> {
    /// Shows what `--print-config` shows, and nothing of `C` itself.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("printed", &self.printed).field("notices", &self.notices).finish_non_exhaustive()
    }
}
