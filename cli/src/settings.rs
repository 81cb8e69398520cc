//! How brokers are reached.

use std::ffi::OsString;

use mainspring::config::Loader;
use mainspring::pubsub::{Brokers, Error};
use mainspring::{BrokersConfig, brokers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::args::Args;
use crate::exit::Exit;

/// The configuration of the command.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    brokers: BrokersConfig,
}

/// Reads defaults, files, environment and flags, as services do.
pub(crate) fn load(args: &Args) -> Result<Settings, Exit> {
    let mut flags = Vec::new();
    for file in &args.config {
        flags.extend([OsString::from("--config"), file.clone().into()]);
    }
    for set in &args.set {
        flags.extend([OsString::from("--set"), set.clone()]);
    }
    let loader = Loader::new("mainspring", env!("CARGO_PKG_VERSION")).args(flags).env(std::env::vars_os());
    let loaded = loader.section::<BrokersConfig>("brokers").load::<Settings>();
    loaded
        .map(|loaded| loaded.into_config())
        .map_err(|exit| Exit { code: exit.code(), message: exit.stderr().to_owned() })
}

impl Settings {
    /// A connection to every broker that this program knows.
    pub(crate) fn brokers(&self) -> Result<Brokers, Error> {
        brokers(&self.brokers)
    }
}
