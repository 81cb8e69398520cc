//! The broker inside the process: `memory://<topic>[?group=<group>]`.
//!
//! A topic has groups, and each group sees every message: within a group, subscribers compete. A group exists from
//! its first subscriber on, and outlives it. Within a group, messages of a key are handed out one at a time, in order;
//! one that waits for its retry holds back the later ones of its key, and nothing else. Attempts are counted.
//!
//! - **Bounds.** A group holds at most `capacity` messages and `max_bytes`; publishing waits while any group of the
//!   topic is full, until the publish's deadline.
//! - **Late groups.** A new group starts with the topic's newest `retention` messages. Older ones are forgotten, as is
//!   everything when the process ends.
//! - **Dead letters.** A rejected message goes to the topic `<topic>.dead`, with the reason in the attribute
//!   `dead-letter-reason`; subscribe to that topic to see it. When a group of that topic is full, the message stays
//!   where it is and is delivered again, so that it is not lost.
//! - **Transactions.** A router that is [`exactly_once`](crate::Router::exactly_once) has what a handler leaves in its
//!   outbox appear together with the ack. While a group of one of the outbox's topics is full, nothing is done, and the
//!   message is delivered again after a second.
//! - **Time** is tokio's: with a paused clock, delays and leases pass as fast as a test moves it.
//!
//! The broker has no task of its own: timers are looked at when a subscriber is polled.

mod dead_letters;
mod faults;
mod group;
mod keys;
mod lease;
mod parcel;
mod retained;
mod subscriber;
mod topic;
mod transaction;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mainspring_config::{ByteSize, Check, Duration, Report};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::driver::{self, AtOnce, Capabilities, Endpoint, Limits, Receipt, Url};
use crate::{Error, Message};
pub use faults::Faults;
pub(crate) use keys::{KeyHash, KeyMap, hash_key};
use subscriber::MemorySubscriber;
use topic::Topic;

pub(crate) const SYSTEM: &str = "memory";
const DEFAULT_GROUP: &str = "default";
const OPTIONS: [&str; 1] = ["group"];

/// The broker inside the process.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Messages that a group holds before publishers to its topic have to wait.
    pub capacity: usize,
    /// Bytes that a group holds before publishers to its topic have to wait.
    pub max_bytes: ByteSize,
    /// The largest message: body, key and attributes together.
    pub max_message_bytes: ByteSize,
    /// How many of its newest messages a topic keeps for groups that come later, within `max_bytes`.
    pub retention: usize,
    /// How long a message may be out before it is delivered again; 0s for as long as its delivery is alive.
    pub visibility_timeout: Duration,
    /// Whether messages are gone with the process, so that a stop works the queues off instead of leaving them. `false`
    /// has the broker behave, in a test, like one that outlives the process.
    pub volatile: bool,
}

/// The topics of one process. Cheap to clone; clones share their topics.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    config: Config,
    faults: Option<Faults>,
    topics: Mutex<BTreeMap<String, Arc<Topic>>>,
}

#[derive(Debug)]
struct MemoryPublisher {
    topic: Arc<Topic>,
}

impl Broker {
    /// A broker without topics: they are made when they are first used.
    pub fn new(config: Config) -> Self {
        Self { shared: Arc::new(Shared { config, faults: None, topics: Mutex::default() }) }
    }

    /// A broker of the same configuration, still without topics, that does wrong what a test tells it to: see
    /// [`Faults`]. To have it behind URLs, give it to [`Brokers::register`](crate::Brokers::register) as `memory`.
    pub fn with_faults(self, faults: Faults) -> Self {
        let config = self.shared.config.clone();
        Self { shared: Arc::new(Shared { config, faults: Some(faults), topics: Mutex::default() }) }
    }

    /// A publisher to `topic`.
    pub fn publisher(&self, topic: &str) -> crate::Publisher {
        crate::Publisher::new(MemoryPublisher { topic: self.shared.topic(topic) })
    }

    /// A subscriber of `group` in `topic`.
    pub fn subscriber(&self, topic: &str, group: &str) -> crate::Subscriber {
        crate::Subscriber::new(MemorySubscriber::new(self.shared.topic(topic), group))
    }
}

impl Shared {
    /// The topic called `name`, made on first use.
    pub(crate) fn topic(self: &Arc<Self>, name: &str) -> Arc<Topic> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        match topics.get(name) {
            Some(topic) => Arc::clone(topic),
            None => {
                let topic = Arc::new(Topic::new(name, self.config.clone(), self.faults.clone(), Arc::downgrade(self)));
                topics.insert(name.to_owned(), Arc::clone(&topic));
                topic
            }
        }
    }
}

impl Config {
    pub(crate) fn capabilities(&self) -> Capabilities {
        Capabilities {
            nack: true,
            nack_delay: true,
            reject: true,
            extend: true,
            lease: Some(self.visibility_timeout.get()).filter(|timeout| !timeout.is_zero()),
            ordered_by_key: true,
            attempts: true,
            replay: self.retention > 0,
            transactions: true,
            volatile: self.volatile,
            // Generous, and no more generous than the brokers that a service may move to.
            limits: Limits {
                batch: Some(1000),
                message_bytes: Some(self.max_message_bytes.as_usize()),
                key_bytes: Some(1024),
                attributes: Some(100),
                lease: None,
            },
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            max_bytes: ByteSize::mib(64),
            max_message_bytes: ByteSize::mib(1),
            retention: 1000,
            visibility_timeout: Duration::ZERO,
            volatile: true,
        }
    }
}

/// Keys are relative to the section that holds this one as `memory`.
impl Check for Config {
    fn check(&self, report: &mut Report) {
        if self.capacity == 0 {
            report.fault("memory.capacity", "no group could hold a message", "the default is 10000");
        }
        if self.max_message_bytes.get() > self.max_bytes.get() {
            let what = "a message that is accepted could fill more than a whole group";
            report.conflict(&["memory.max_message_bytes", "memory.max_bytes"], what, "raise memory.max_bytes");
        }
    }
}

#[async_trait]
impl driver::Opener for Broker {
    fn check(&self, url: &Url) -> Result<(), Error> {
        url.expect_options(&OPTIONS)
    }

    async fn publisher(&self, url: &Url) -> Result<Box<dyn driver::Publisher>, Error> {
        self.check(url)?;
        Ok(Box::new(MemoryPublisher { topic: self.shared.topic(url.name()) }))
    }

    async fn subscriber(&self, url: &Url) -> Result<Box<dyn driver::Subscriber>, Error> {
        self.check(url)?;
        let group = url.option("group").unwrap_or(DEFAULT_GROUP);
        Ok(Box::new(MemorySubscriber::new(self.shared.topic(url.name()), group)))
    }
}

#[async_trait]
impl driver::Publisher for MemoryPublisher {
    async fn publish(&self, message: Message, deadline: Instant) -> Result<Receipt, Error> {
        self.topic.publish(message, deadline).await
    }

    fn publish_at_once(&self, message: Message) -> AtOnce {
        self.topic.publish_at_once(message)
    }

    async fn flush(&self, _deadline: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        self.topic.config().capabilities()
    }

    fn endpoint(&self) -> Endpoint {
        self.topic.endpoint()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.shared.topics.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Broker").field("topics", &topics.keys()).finish_non_exhaustive()
    }
}
