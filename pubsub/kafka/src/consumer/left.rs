//! What earlier owners have left of a partition: where the group is, and what it has done above that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tracing::warn;

use super::context::ConsumerCx;
use super::partition::Commit;
use crate::holes::Noted;
use crate::options::COMMIT;

/// How long a rebalance may wait for what the group has committed.
const LOOK_UP: Duration = Duration::from_secs(5);

/// What an earlier owner has left of a partition.
pub(super) struct Left {
    pub(super) partition: i32,
    pub(super) position: Option<i64>,
    /// The group has never committed anything of it.
    pub(super) new: bool,
    pub(super) noted: Noted,
}

impl ConsumerCx {
    /// What earlier owners have left of each partition.
    pub(super) fn committed(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Vec<Left> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        let list = match consumer.committed_offsets(list, LOOK_UP) {
            Ok(list) => list,
            Err(error) => {
                warn!(topic = self.topic, %error, "cannot see what was noted as done; some messages may be handled again");
                let unknown = |partition: &i32| Left {
                    partition: *partition,
                    position: None,
                    new: false,
                    noted: Noted::default(),
                };
                return partitions.iter().map(unknown).collect();
            }
        };
        let elements = list.elements();
        let noted = elements.iter().map(|element| {
            let partition = element.partition();
            let Offset::Offset(position) = element.offset() else {
                return Left { partition, position: None, new: true, noted: Noted::default() };
            };
            // The client panics where another has written what is not text.
            let text = catch_unwind(AssertUnwindSafe(|| element.metadata())).unwrap_or_default();
            Left { partition, position: Some(position), new: false, noted: Noted::decode(position, text) }
        });
        noted.collect()
    }

    /// Notes where a new group begins, so that it does not begin later after a crash before its first commit.
    pub(super) fn begin(&self, consumer: &BaseConsumer<Self>, committed: &[Left]) {
        let mut commits = Vec::new();
        for &Left { partition, .. } in committed.iter().filter(|left| left.new) {
            match consumer.fetch_watermarks(&self.topic, partition, LOOK_UP) {
                Ok((_low, high)) => {
                    commits.push(Commit { partition, position: high, metadata: String::new() });
                }
                Err(error) => warn!(topic = self.topic, partition, %error, "cannot see where the partition ends"),
            }
        }
        if let Err(error) = self.commit_now(consumer, commits, Instant::now() + COMMIT) {
            warn!(topic = self.topic, %error, "cannot note where the group begins");
        }
    }
}
