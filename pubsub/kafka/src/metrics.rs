//! What consumers tell about themselves: how far behind they are, and how often partitions moved. Families are
//! process-wide, as the registry is.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use mainspring_observe::metrics::registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::SYSTEM;

static FAMILIES: LazyLock<Families> = LazyLock::new(Families::register);

struct Families {
    lag: Family<PartitionLabels, Gauge>,
    assigned: Family<GroupLabels, Gauge>,
    rebalances: Family<GroupLabels, Counter>,
}

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

/// What one consumer counts. Its partitions leave the metrics with it.
#[derive(Debug)]
pub(crate) struct Consumed {
    topic: String,
    group: String,
    assigned: Gauge,
    rebalances: Counter,
    partitions: Mutex<BTreeSet<i32>>,
}

impl Consumed {
    pub(crate) fn new(topic: &str, group: &str) -> Self {
        let labels = GroupLabels {
            messaging_system: SYSTEM,
            messaging_destination_name: topic.to_owned(),
            messaging_consumer_group_name: group.to_owned(),
        };
        Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
            assigned: FAMILIES.assigned.get_or_create(&labels).clone(),
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

impl Drop for Consumed {
    fn drop(&mut self) {
        let known = std::mem::take(self.partitions.get_mut().unwrap_or_else(PoisonError::into_inner));
        known.into_iter().for_each(|partition| self.forget(partition));
    }
}

impl Families {
    fn register() -> Self {
        let families = Self { lag: Family::default(), assigned: Family::default(), rebalances: Family::default() };
        let all = registry();
        all.register("pubsub_lag", "Messages that a group has not handled yet", families.lag.clone());
        all.register("pubsub_partitions", "Partitions that are read here", families.assigned.clone());
        all.register("pubsub_rebalances", "Times that partitions came or went", families.rebalances.clone());
        families
    }
}
