//! Mainspring: an opinionated server-and-pubsub daemon kit.
//!
//! A team writes handlers; Mainspring makes them a daemon: configuration, HTTP servers, publishers and subscribers,
//! health, metrics, logs and traces, and a shutdown that loses nothing. `examples/orders` is a whole daemon on one
//! page.
//!
//! This crate only gathers the others under one name; what each is for stands in its own documentation.

pub use axum;
pub use mainspring_config as config;
pub use mainspring_daemon as daemon;
pub use mainspring_observe as observe;
pub use mainspring_pubsub as pubsub;
pub use mainspring_pubsub::BrokersConfig;
pub use mainspring_server as server;
pub use mainspring_web as web;

/// What tests use: the whole daemon in one process, doubles of publishers and subscribers, and the suite for brokers.
pub mod testing {
    pub use mainspring_server::testing::*;
    pub use mainspring_testing::*;
}

/// The app of the package that calls it: name and version come from its `Cargo.toml`. See [`server::App::launch`].
#[macro_export]
macro_rules! app {
    () => {
        $crate::server::App::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .section::<$crate::BrokersConfig>("brokers")
    };
}

/// Everything that opens publishers and subscribers by URL: the in-memory broker, and each broker whose feature is on.
pub fn brokers(config: &BrokersConfig) -> Result<pubsub::Brokers, pubsub::Error> {
    let brokers = pubsub::Brokers::new(config)?;
    #[cfg(feature = "kafka")]
    let brokers = brokers.register("kafka", mainspring_kafka::opener(config));
    Ok(brokers)
}

/// The README's sample is compiled like any other.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
