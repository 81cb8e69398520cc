//! What consumers tell about themselves: how far behind they are, how often partitions moved, and how their commits and
//! transactions end. Families are process-wide, as the registry is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use mainspring_observe::metrics::registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::SYSTEM;

static FAMILIES: LazyLock<Families> = LazyLock::new(Families::register);

struct Families {
    lag: Family<PartitionLabels, Gauge>,
    assigned: Family<GroupLabels, Gauge>,
    waiting: Family<GroupLabels, Gauge>,
    rebalances: Family<GroupLabels, Counter>,
    transactions: Family<TransactionLabels, Histogram, fn() -> Histogram>,
    published: Family<GroupLabels, Counter>,
    settle_failures: Family<FailureLabels, Counter>,
}

/// Seconds. Some ten milliseconds are usual; a broker that is gone is waited for.
const TRANSACTION_BUCKETS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartitionLabels {
    messaging_system: &'static str,
    messaging_destination_name: String,
    messaging_consumer_group_name: String,
    messaging_destination_partition_id: i32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GroupLabels {
    messaging_system: &'static str,
    messaging_destination_name: String,
    messaging_consumer_group_name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TransactionLabels {
    messaging_system: &'static str,
    messaging_destination_name: String,
    messaging_consumer_group_name: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FailureLabels {
    messaging_system: &'static str,
    messaging_destination_name: String,
    messaging_consumer_group_name: String,
    error_type: &'static str,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TransactionEnd {
    Committed,
    Aborted,
    /// Nobody told us.
    Unclear,
}

/// What one consumer counts. Its partitions leave the metrics with it.
#[derive(Debug)]
pub(crate) struct Consumed {
    topic: String,
    group: String,
    assigned: Gauge,
    waiting: Gauge,
    /// How many of those that wait are this consumer's: others count in the same gauge.
    own_waiting: AtomicI64,
    rebalances: Counter,
    partitions: Mutex<BTreeSet<i32>>,
}

impl Consumed {
    pub(crate) fn new(topic: &str, group: &str) -> Self {
        let labels = GroupLabels::new(topic, group);
        Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
            assigned: FAMILIES.assigned.get_or_create(&labels).clone(),
            waiting: FAMILIES.waiting.get_or_create(&labels).clone(),
            own_waiting: AtomicI64::new(0),
            rebalances: FAMILIES.rebalances.get_or_create(&labels).clone(),
            partitions: Mutex::default(),
        }
    }

    pub(crate) fn assigned(&self, partitions: &[i32]) {
        self.rebalances.inc();
        let mut known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let new = partitions.iter().filter(|partition| known.insert(**partition)).count();
        self.assigned.inc_by(i64::try_from(new).unwrap_or(0));
    }

    pub(crate) fn revoked(&self, partitions: &[i32]) {
        self.rebalances.inc();
        let mut known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions.iter().filter(|partition| known.remove(partition)) {
            self.forget(*partition);
        }
    }

    /// How many messages a partition has that the group has not done; unknown until one was delivered.
    pub(crate) fn lag(&self, partition: i32, messages: i64) {
        let known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if messages >= 0 && known.contains(&partition) {
            FAMILIES.lag.get_or_create(&self.labels(partition)).set(messages);
        }
    }

    /// So many partitions wait for their lowest message to be done.
    pub(crate) fn waiting(&self, partitions: usize) {
        let now = i64::try_from(partitions).unwrap_or(i64::MAX);
        let before = self.own_waiting.swap(now, Relaxed);
        self.waiting.inc_by(now - before);
    }

    /// A transaction that took so long has ended; with it `messages` were published, if it was committed.
    pub(crate) fn transaction(&self, end: TransactionEnd, took: Duration, messages: usize) {
        let outcome = match end {
            TransactionEnd::Committed => "committed",
            TransactionEnd::Aborted => "aborted",
            TransactionEnd::Unclear => "unclear",
        };
        let labels = TransactionLabels {
            messaging_system: SYSTEM,
            messaging_destination_name: self.topic.clone(),
            messaging_consumer_group_name: self.group.clone(),
            outcome,
        };
        FAMILIES.transactions.get_or_create(&labels).observe(took.as_secs_f64());
        if matches!(end, TransactionEnd::Committed) {
            FAMILIES.published.get_or_create(&GroupLabels::new(&self.topic, &self.group)).inc_by(messages as u64);
        } else {
            self.settle_failed(outcome);
        }
    }

    /// What was settled did not get to the broker, for now or for good.
    pub(crate) fn settle_failed(&self, error_type: &'static str) {
        let labels = FailureLabels {
            messaging_system: SYSTEM,
            messaging_destination_name: self.topic.clone(),
            messaging_consumer_group_name: self.group.clone(),
            error_type,
        };
        FAMILIES.settle_failures.get_or_create(&labels).inc();
    }

    fn forget(&self, partition: i32) {
        self.assigned.dec();
        FAMILIES.lag.remove(&self.labels(partition));
    }

    fn labels(&self, partition: i32) -> PartitionLabels {
        PartitionLabels {
            messaging_system: SYSTEM,
            messaging_destination_name: self.topic.clone(),
            messaging_consumer_group_name: self.group.clone(),
            messaging_destination_partition_id: partition,
        }
    }
}

impl GroupLabels {
    fn new(topic: &str, group: &str) -> Self {
        Self {
            messaging_system: SYSTEM,
            messaging_destination_name: topic.to_owned(),
            messaging_consumer_group_name: group.to_owned(),
        }
    }
}

impl Drop for Consumed {
    fn drop(&mut self) {
        let known = std::mem::take(self.partitions.get_mut().unwrap_or_else(PoisonError::into_inner));
        known.into_iter().for_each(|partition| self.forget(partition));
        self.waiting(0);
    }
}

impl Families {
    fn register() -> Self {
        let families = Self {
            lag: Family::default(),
            assigned: Family::default(),
            waiting: Family::default(),
            rebalances: Family::default(),
            transactions: Family::new_with_constructor(|| Histogram::new(TRANSACTION_BUCKETS)),
            published: Family::default(),
            settle_failures: Family::default(),
        };
        let all = registry();
        all.register("pubsub_lag", "Messages that a group has not handled yet", families.lag.clone());
        all.register("pubsub_partitions", "Partitions that are read here", families.assigned.clone());
        let help = "Partitions of which nothing more is fetched until their lowest message is done";
        all.register("pubsub_partitions_waiting", help, families.waiting.clone());
        all.register("pubsub_rebalances", "Times that partitions came or went", families.rebalances.clone());
        let help = "How long transactions took, by their end; their number is this one's count";
        all.register("pubsub_transaction_duration_seconds", help, families.transactions.clone());
        let help = "Messages published in transactions that were committed";
        all.register("pubsub_transaction_messages", help, families.published.clone());
        let help = "Commits that the broker refused or did not answer, and transactions that were not committed";
        all.register("pubsub_settle_failures", help, families.settle_failures.clone());
        families
    }
}
