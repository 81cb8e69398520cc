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

const KNOWN: [&str; 13] = [
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
    "membership",
    "rack",
];
/// Kafka's own limit on names of members is 249, less the number behind it.
const MAX_INSTANCE: usize = 200;
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
    pub(crate) membership: Membership,
    /// Where we are, for brokers that have us read from replicas that are near.
    pub(crate) rack: Option<String>,
}

/// What the group makes of a member that goes and comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// Others take over at once, and it comes back as a stranger.
    Dynamic,
    /// It is known by its name, and its partitions wait for it until its session ends.
    Static,
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
        let membership = match url.option("membership") {
            None | Some("dynamic") => Membership::Dynamic,
            Some("static") => Membership::Static,
            Some(other) => return Err(not_one_of(url, "membership", other, &["dynamic", "static"])),
        };
        let instance = url.option("instance").map(str::to_owned);
        if membership == Membership::Static
            && let Some(instance) = &instance
        {
            check_instance(url, instance)?;
        }
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
            instance,
            membership,
            rack: url.option("rack").map(str::to_owned),
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

/// Kafka takes the names of static members only if they could be topics'.
fn check_instance(url: &Url, instance: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match (1..=MAX_INSTANCE).contains(&instance.len()) && instance.chars().all(fits) {
        true => Ok(()),
        false => Err(url.fault(
            format!("`instance={instance}` cannot name a static member"),
            format!("use 1 to {MAX_INSTANCE} letters, digits, `.`, `_` and `-`"),
        )),
    }
}

fn not_one_of(url: &Url, option: &str, value: &str, known: &[&str]) -> Error {
    url.fault(format!("`{value}` is no {option}"), format!("use one of: {}", known.join(", ")))
}

#[cfg(test)]
mod tests;
