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
pub use mainspring_pubsub::{BrokerUrl, BrokersConfig};
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
            .section_with($crate::BrokerUrl::SECTION, "brokers", $crate::check_broker_url)
    };
}

/// Everything that opens publishers and subscribers by URL: the in-memory broker, and each broker whose feature is on.
pub fn brokers(config: &BrokersConfig) -> Result<pubsub::Brokers, pubsub::Error> {
    Ok(with_drivers(pubsub::Brokers::new(config)?, config))
}

/// Reports what is wrong with a URL of the configuration, given the drivers in this program. Opens nothing. Apps made
/// by [`app!`] have it run for every [`BrokerUrl`] they are configured with.
pub fn check_broker_url(url: &BrokerUrl, config: &BrokersConfig, report: &mut config::Report) {
    if let Some(brokers) = brokers_to_ask(config) {
        url.check(&brokers, report);
    }
}

/// Reports, of the URL at `key`, what it lacks to be subscribed to: `kafka://orders` has no group, for example. Only the
/// service knows which of its URLs that are, so its own configuration's [`Check`](config::Check) calls it; see
/// `examples/orders`.
pub fn check_subscriber_url(key: &str, url: &BrokerUrl, config: &BrokersConfig, report: &mut config::Report) {
    if let Some(brokers) = brokers_to_ask(config) {
        url.check_subscriber(key, &brokers, report);
    }
}

/// A fault of the section is reported as one, and no reason to leave others unsaid.
fn brokers_to_ask(config: &BrokersConfig) -> Option<pubsub::Brokers> {
    let brokers = pubsub::Brokers::new(config).or_else(|_| pubsub::Brokers::new(&BrokersConfig::default()));
    Some(with_drivers(brokers.ok()?, config))
}

#[cfg_attr(not(feature = "kafka"), expect(unused_variables, reason = "only drivers are configured"))]
fn with_drivers(brokers: pubsub::Brokers, config: &BrokersConfig) -> pubsub::Brokers {
    #[cfg(feature = "kafka")]
    let brokers = brokers.register("kafka", mainspring_kafka::opener(config));
    brokers
}

/// The README's sample is compiled like any other.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
