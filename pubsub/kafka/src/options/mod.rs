//! What a `kafka://` URL says.

mod address;
mod timeouts;

use std::fmt;
use std::time::Duration;

use mainspring_pubsub::driver::{Limits, Url};
use mainspring_pubsub::{Error, KafkaConfig};

use crate::publisher;
use crate::security::Security;
use address::Address;
pub(crate) use address::check_topic;
pub(crate) use timeouts::COMMIT;
use timeouts::{Timeouts, duration};

const KNOWN: [&str; 11] = [
    "group",
    "protocol",
    "auto_offset_reset",
    "session_timeout",
    "rebalance_timeout",
    "drain",
    "grace",
    "client_id",
    "compression",
    "linger",
    "instance",
];
const COMPRESSIONS: [&str; 5] = ["none", "gzip", "lz4", "snappy", "zstd"];

/// A `kafka://` URL, checked, with what the configuration adds.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) topic: String,
    /// `host:port`, with commas.
    pub(crate) brokers: String,
    pub(crate) security: Security,
    pub(crate) group: Option<String>,
    pub(crate) protocol: Protocol,
    pub(crate) reset: Reset,
    pub(crate) session_timeout: Option<Duration>,
    /// The client's own without one, five minutes.
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) drain: Duration,
    pub(crate) grace: Duration,
    pub(crate) client_id: String,
    pub(crate) compression: String,
    pub(crate) linger: Duration,
    /// Of what is published.
    pub(crate) limits: Limits,
    /// `None` for as often as there is time.
    pub(crate) max_retry: Option<u32>,
    /// What tells this member of the group from the others, and stays when it is started again.
    pub(crate) instance: Option<String>,
}

/// How the members of a group agree on who reads what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `consumer` where the broker has it, else `classic`.
    Auto,
    /// The clients agree among themselves; everything stops at each change.
    Classic,
    /// The broker decides, partition by partition (KIP-848; Kafka 4.0 or later).
    Consumer,
}

/// Where a group begins that has no position yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    Earliest,
    Latest,
}

impl Options {
    pub(crate) fn new(url: &Url, config: &KafkaConfig) -> Result<Self, Error> {
        url.expect_options(&KNOWN)?;
        let Address { topic, brokers, login } = Address::of(url, config)?;
        let protocol = match url.option("protocol") {
            None | Some("auto") => Protocol::Auto,
            Some("classic") => Protocol::Classic,
            Some("consumer") => Protocol::Consumer,
            Some(other) => return Err(not_one_of(url, "protocol", other, &["auto", "classic", "consumer"])),
        };
        let reset = match url.option("auto_offset_reset") {
            None | Some("earliest") => Reset::Earliest,
            Some("latest") => Reset::Latest,
            Some(other) => return Err(not_one_of(url, "auto_offset_reset", other, &["earliest", "latest"])),
        };
        let Timeouts { session, rebalance, drain } = Timeouts::of(url, protocol)?;
        let compression = url.option("compression").unwrap_or("lz4");
        if !COMPRESSIONS.contains(&compression) {
            return Err(not_one_of(url, "compression", compression, &COMPRESSIONS));
        }
        Ok(Self {
            topic,
            brokers,
            security: Security::new(login, config)?,
            group: url.option("group").map(str::to_owned),
            protocol,
            reset,
            session_timeout: session,
            rebalance_timeout: rebalance,
            drain,
            grace: duration(url, "grace", Duration::from_secs(10))?,
            client_id: url.option("client_id").unwrap_or("mainspring").to_owned(),
            compression: compression.to_owned(),
            linger: duration(url, "linger", Duration::from_millis(5))?,
            limits: publisher::limits(),
            max_retry: config.max_retry,
            instance: url.option("instance").map(str::to_owned),
        })
    }

    /// The group, without which nobody can subscribe.
    pub(crate) fn expect_group(&self, url: &Url) -> Result<String, Error> {
        let missing = || url.fault("the option `group` is missing", "subscribers of a group share its messages");
        self.group.clone().ok_or_else(missing)
    }
}

/// The password stays out.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("topic", &self.topic)
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

fn not_one_of(url: &Url, option: &str, value: &str, known: &[&str]) -> Error {
    url.fault(format!("`{value}` is no {option}"), format!("use one of: {}", known.join(", ")))
}

#[cfg(test)]
mod tests;
