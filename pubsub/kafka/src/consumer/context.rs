//! What the client calls back, on the consumer's own thread: what it logs, its statistics, its errors. Rebalances, which
//! it calls back as well, are in `rebalance.rs`.
//!
//! No list of the client's is kept anywhere: while one is alive, the client cannot be closed.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use mainspring_pubsub::ErrorKind;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use tracing::debug;

use super::feed::Feed;
use super::transactions::Fault;
use crate::client::{self, Cause};
use crate::metrics::Consumed;
use crate::options::{Options, Reset};

/// For how many statistics, one a second, no broker may be connected before that is called down.
const DOWN_AFTER: u32 = 3;

pub(super) struct ConsumerCx {
    pub(super) feed: Arc<Feed>,
    /// The consumer itself, for commits on another thread.
    pub(super) consumer: OnceLock<Weak<BaseConsumer<Self>>>,
    pub(super) cause: Cause,
    pub(super) consumed: Consumed,
    pub(super) topic: String,
    brokers: String,
    pub(super) reset: Reset,
    pub(super) drain: Duration,
    /// Counts what the client calls back: polling it answers nothing both for that and for having nothing.
    pub(super) events: AtomicU64,
    /// Partitions have come or gone.
    pub(super) moved: AtomicBool,
    /// A first assignment has come, if an empty one.
    pub(super) joined: AtomicBool,
    /// A commit is under way beside the consumer's thread.
    pub(super) committing: AtomicBool,
    /// The broker wants no metadata of that size.
    pub(super) plain: AtomicBool,
    pub(super) fault: Mutex<Option<Fault>>,
    without_broker: AtomicU32,
}

impl ConsumerCx {
    pub(super) fn new(feed: Arc<Feed>, options: &Options, group: &str) -> Self {
        Self {
            feed,
            consumer: OnceLock::new(),
            cause: Cause::default(),
            consumed: Consumed::new(&options.topic, group),
            topic: options.topic.clone(),
            brokers: options.brokers.clone(),
            reset: options.reset,
            drain: options.drain,
            events: AtomicU64::new(0),
            moved: AtomicBool::new(false),
            joined: AtomicBool::new(false),
            committing: AtomicBool::new(false),
            plain: AtomicBool::new(false),
            fault: Mutex::default(),
            without_broker: AtomicU32::new(0),
        }
    }

    /// Whether brokers answer, as far as is known.
    pub(super) fn has_broker(&self) -> bool {
        self.without_broker.load(Relaxed) == 0
    }

    pub(super) fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// Names the consumer whose context this is.
    pub(super) fn belongs_to(&self, consumer: &Arc<BaseConsumer<Self>>) {
        let _ = self.consumer.set(Arc::downgrade(consumer));
    }

    /// Whether the consumer is being dropped. It still has its callbacks called then, and answers no questions.
    pub(super) fn is_dropped(&self) -> bool {
        self.consumer.get().is_some_and(|consumer| consumer.strong_count() == 0)
    }

    /// Whether brokers answer, as the last statistics have it.
    fn watch(&self, statistics: &Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.without_broker.store(0, Relaxed);
            self.cause.clear();
            self.feed.set_down(None);
        } else if self.without_broker.fetch_add(1, Relaxed) + 1 >= DOWN_AFTER {
            let error = self.cause.error(&self.brokers);
            let kind = match error.kind() {
                ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            };
            self.feed.set_down(Some((kind, format!("no broker can be reached: {error}"))));
        }
    }
}

impl ClientContext for ConsumerCx {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.events.fetch_add(1, Relaxed);
        client::log(level, facility, text);
    }

    fn error(&self, cause: KafkaError, reason: &str) {
        self.cause.note(&cause, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.events.fetch_add(1, Relaxed);
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => self.stats(statistics),
            Err(error) => debug!(%error, "cannot read the client's statistics"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.watch(&statistics);
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        for partition in topic.partitions.values() {
            self.consumed.lag(partition.partition, partition.consumer_lag);
            if partition.committed_offset >= 0 {
                self.feed.noted_at(partition.partition, partition.committed_offset);
            }
        }
    }
}
