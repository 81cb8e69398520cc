//! What SIGHUP changes: the configuration is read again, and what can change in a running process does.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use mainspring_config::{Exit, Loaded, Loader, Values};
use mainspring_observe::log;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Config;

/// How to read the configuration again, and what it said the last time.
///
/// Arguments and environment of a process stay as they were; its files are read anew.
pub(crate) struct Reload {
    load: Box<dyn Fn() -> Result<Said, Exit> + Send + Sync>,
    said: Mutex<Said>,
}

struct Said {
    values: Values,
    filter: String,
    /// The dotted key of the filter.
    filter_key: String,
}

impl Reload {
    pub(crate) fn new<C>(loader: Loader, loaded: &Loaded<C>) -> Self
    where
        C: Serialize + DeserializeOwned + JsonSchema + Default + 'static,
    {
        let load = move || loader.clone().load::<C>().map(|loaded| Said::of(&loaded));
        Self { load: Box::new(load), said: Mutex::new(Said::of(loaded)) }
    }

    /// Reads, and says in the log what came of it. A faulty configuration changes nothing.
    pub(crate) fn run(&self, log: &log::Handle) {
        let new = match (self.load)() {
            Ok(new) => new,
            Err(exit) => {
                for problem in exit.stderr().lines() {
                    tracing::error!(problem, "SIGHUP: the configuration is faulty; what was loaded before stays");
                }
                return;
            }
        };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = said.values.changes(&new.values);
        waiting.retain(|key| *key != new.filter_key);
        // What an operator has set on the admin listener stays, unless the file says something new.
        if new.filter != said.filter {
            match log.set_filter(&new.filter) {
                Ok(()) => tracing::info!(filter = new.filter, "SIGHUP: log filter changed"),
                Err(error) => tracing::error!(%error, "SIGHUP: the log filter stays"),
            }
        }
        if !waiting.is_empty() {
            tracing::warn!(keys = waiting.join(", "), "SIGHUP: changes that wait for the next start");
        }
        // What waits is said at every SIGHUP until it is in force: only the filter is.
        said.filter = new.filter;
    }
}

impl Said {
    fn of<C>(loaded: &Loaded<C>) -> Self {
        let filter = loaded.get::<Config>("server").unwrap_or_default().log.filter;
        let filter_key = match loaded.path_of("log") {
            Some(log) if log != "-" => format!("{log}.filter"),
            _ => "filter".to_owned(),
        };
        Self { values: loaded.values(), filter, filter_key }
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}
