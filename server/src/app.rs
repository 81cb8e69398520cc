//! From `main` to a running daemon: flags, file, environment, logs, runtime, exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainspring_config::{Check, Loader, Report};
use mainspring_observe::{Identity, log, panics};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{EX_CONFIG, EX_UNAVAILABLE};
use crate::reload::Reload;
use crate::signals::{Signals, Told};
use crate::{Config, Error, Result};

/// A daemon's name and version, and how to start it. Made by [`app!`](crate::app).
#[must_use = "an app does nothing until it is launched"]
pub struct App {
    name: &'static str,
    version: &'static str,
    sections: Vec<Box<dyn FnOnce(Loader) -> Loader>>,
}

/// What `launch` knows and the server shows.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) identity: Identity,
    /// The effective configuration with origins, secrets masked.
    pub(crate) printed: String,
    pub(crate) reload: Reload,
    /// A server runs, and sees to signals.
    serving: AtomicBool,
}

tokio::task_local! {
    /// Set for the future that `launch` runs, so that a server made in it knows its name. Not a global: another app
    /// in the same process has another one.
    static LAUNCHED: Arc<Launched>;
}

/// The app of the package that calls it: name and version come from its `Cargo.toml`.
#[macro_export]
macro_rules! app {
    () => {
        $crate::App::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    };
}

impl App {
    /// An app with a name, which is also the prefix of its environment variables, and a version.
    pub fn new(name: &'static str, version: &'static str) -> Self {
        Self { name, version, sections: Vec::new() }.section::<Config>("server").section::<log::Config>("log")
    }

    /// Has the cross-field check of a section run wherever the section stands in the configuration. A section is a
    /// struct with `#[schemars(extend("x-section" = "name"))]`; the kit's own are known.
    pub fn section<T: Check + DeserializeOwned + 'static>(mut self, name: &'static str) -> Self {
        self.sections.push(Box::new(move |loader| loader.section::<T>(name)));
        self
    }

    /// Has a section checked that cannot be judged without another one; see [`Loader::section_with`].
    pub fn section_with<T, O>(mut self, name: &'static str, other: &'static str, check: fn(&T, &O, &mut Report)) -> Self
    where
        T: DeserializeOwned + 'static,
        O: DeserializeOwned + Default + 'static,
    {
        self.sections.push(Box::new(move |loader| loader.section_with(name, other, check)));
        self
    }

    /// Loads the configuration, sets logs and runtime up, runs `run`, and answers the exit code.
    ///
    /// `#[tokio::main]` cannot do this: the number of worker threads is configured, and the exit code tells how the
    /// process ended. The section that is a [`Config`](crate::Config) is found wherever it stands in `C`.
    ///
    /// A SIGTERM or SIGINT before a server runs drops `run`'s future: nothing was accepted, and the exit code is 0.
    ///
    /// A faulty configuration prints every problem to standard error, one a line, and is 78. `--help`, `--version`,
    /// `--check-config`, `--print-config` and `--config-schema` print and return without opening anything. The error that
    /// ends the process is logged, and goes to standard error where the log's filter hides it.
    pub fn launch<C, F, Fut>(self, run: F) -> ExitCode
    where
        C: Serialize + DeserializeOwned + JsonSchema + Default + 'static,
        F: FnOnce(C) -> Fut,
        Fut: Future<Output = Result>,
    {
        let loader = Loader::new(self.name, self.version).args(std::env::args_os().skip(1)).env(std::env::vars_os());
        let loader = self.sections.into_iter().fold(loader, |loader, section| section(loader));
        let loaded = match loader.clone().load::<C>() {
            Ok(loaded) => loaded,
            Err(exit) => {
                // A reader that has left (`--help | head`) is no reason to panic.
                let _ = std::io::stdout().write_all(exit.stdout().as_bytes());
                let _ = std::io::stderr().write_all(exit.stderr().as_bytes());
                return ExitCode::from(exit.code());
            }
        };
        let config = loaded.get::<Config>("server").unwrap_or_default();
        let identity = Identity::new(self.name, self.version);
        let guard = match init(&config.log, &identity) {
            Ok(guard) => guard,
            Err(error) => {
                eprintln!("{}: {error}", self.name);
                return ExitCode::from(error.code());
            }
        };
        for notice in loaded.notices() {
            tracing::warn!("{notice}");
        }
        let reload = Reload::new(loader, &loaded);
        let (printed, serving) = (loaded.printed().to_owned(), AtomicBool::new(false));
        let launched = Arc::new(Launched { identity, printed, reload, serving });
        let result = runtime(self.name, &config).and_then(|runtime| {
            let result = runtime.block_on(async {
                let told = launched.told_to_stop().map_err(|error| Error::with_code(EX_UNAVAILABLE, error))?;
                tokio::select! {
                    result = LAUNCHED.scope(Arc::clone(&launched), async { run(loaded.into_config()).await }) => result,
                    cause = told => {
                        tracing::info!(cause, forced = false, "stopped");
                        Ok(())
                    }
                }
            });
            // Threads that block for good must not keep a process that has said it stopped.
            runtime.shutdown_timeout(Duration::from_millis(50));
            result
        });
        let code = match result {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(code = error.code(), "{error}");
                // Whatever the filter hides, nobody should have to guess why a process has ended.
                if !tracing::enabled!(tracing::Level::ERROR) {
                    let _ = writeln!(std::io::stderr(), "{}: {error}", self.name);
                }
                error.code()
            }
        };
        guard.flush(Duration::from_millis(500));
        ExitCode::from(code)
    }
}

impl Launched {
    /// From now on a server sees to signals.
    pub(crate) fn serves(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// Resolves, with the signal's name, when the process is told to stop before it serves: while it waits for a broker,
    /// say.
    fn told_to_stop(&self) -> io::Result<impl Future<Output = &'static str>> {
        let mut signals = Signals::new()?;
        Ok(async move {
            loop {
                if let Told::Stop(name, _) = signals.next().await
                    && !self.serving.load(Ordering::Acquire)
                {
                    return name;
                }
            }
        })
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Installs what a process has only one of: the log subscriber and the panic hook. A second call shares the first.
///
/// [`App::launch`] and [`SimpleServer::run`](crate::SimpleServer::run) call it. The error's code is 78 when the
/// configuration is at fault, 69 when a log file cannot be opened.
pub fn init(config: &log::Config, identity: &Identity) -> Result<log::Guard> {
    let guard = log::init(config, identity).map_err(|error| {
        let code = if Report::of(config).is_empty() { EX_UNAVAILABLE } else { EX_CONFIG };
        Error::with_code(code, error)
    })?;
    panics::install();
    Ok(guard)
}

/// What the app that this future belongs to was launched with.
pub(crate) fn launched() -> Option<Arc<Launched>> {
    LAUNCHED.try_with(Arc::clone).ok()
}

fn runtime(name: &str, config: &Config) -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name(name);
    // Without a number of its own tokio asks how many cores the cgroup grants.
    if let Some(threads) = config.runtime.worker_threads {
        builder.worker_threads(threads.get() as usize);
    }
    builder.build().map_err(|error| Error::with_code(EX_UNAVAILABLE, error))
}
