//! What happens when partitions come and go, all of it on the consumer's own thread, while the client calls back.
//!
//! One that comes goes on where the group is. One that goes hands out nothing more, waits for what is being handled, is
//! committed, and is then nobody's here: what is settled later is lost. The broker's answer to that commit tells whether the
//! partition was still ours.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tracing::{info, warn};

use super::context::ConsumerCx;
use super::feed::Feed;
use super::partition::{Commit, Partition};
use super::state::State;
use crate::error::{self, from_kafka};
use crate::holes::Noted;
use crate::options::{COMMIT, Reset};

impl ConsumerContext for ConsumerCx {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.events.fetch_add(1, Relaxed);
        match rebalance {
            Rebalance::Assign(list) => {
                self.joined.store(true, Relaxed);
                let partitions = self.of(list);
                // One that is being dropped hands out nothing more, and would ask in vain where the group is.
                if !partitions.is_empty() && !self.is_dropped() {
                    self.assign(consumer, &partitions);
                }
            }
            Rebalance::Revoke(list) => {
                let partitions = self.of(list);
                if !partitions.is_empty() {
                    self.revoke(consumer, &partitions);
                }
            }
            Rebalance::Error(error) => warn!(topic = self.topic, %error, "rebalance failed"),
        }
        self.moved.store(true, Relaxed);
    }
}

impl ConsumerCx {
    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let committed = self.committed(consumer, partitions);
        if self.reset == Reset::Latest {
            self.begin(consumer, &committed);
        }
        let positions: Vec<_> = committed.iter().filter_map(|left| Some((left.partition, left.position?))).collect();
        self.feed.assign(committed.into_iter().map(|left| (left.partition, left.noted)));
        for (partition, position) in positions {
            self.feed.noted_at(partition, position);
        }
        self.consumed.assigned(partitions);
        info!(topic = self.topic, ?partitions, "partitions assigned");
    }

    /// Lets what is being handled finish, commits it, and gives the partitions up.
    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let lost = consumer.assignment_lost();
        let budget = if lost { Duration::ZERO } else { self.drain };
        let out = self.feed.drain(partitions, budget);
        if out > 0 && self.feed.stopping().is_none() {
            warn!(topic = self.topic, out, waited = ?budget, "partitions leave with messages in work; those will be handled again");
        }
        if self.feed.is_transactional() {
            let all = !lost && self.transact_revoked(consumer);
            drop(self.feed.forget(partitions));
            self.consumed.revoked(partitions);
            self.feed.committed(if all { Ok(()) } else { Err(error::lost()) });
            match all {
                true => info!(topic = self.topic, ?partitions, "partitions revoked"),
                false => warn!(
                    topic = self.topic,
                    ?partitions,
                    "partitions were lost; what was not committed is handled again elsewhere"
                ),
            }
            return;
        }
        if self.committing.load(Relaxed) {
            // It may not land.
            self.feed.recommit();
        }
        let commits = self.feed.forget(partitions);
        self.consumed.revoked(partitions);
        let committed = match lost {
            _ if commits.is_empty() => Ok(()),
            true => Err(KafkaError::ConsumerCommit(Code::AssignmentLost)),
            // The answer is the fence: that the membership was not lost before says nothing about now.
            false => {
                let end = Instant::now() + COMMIT;
                self.commit_now(consumer, commits, self.feed.stopping().map_or(end, |deadline| deadline.min(end)))
            }
        };
        match &committed {
            Ok(()) => info!(topic = self.topic, ?partitions, "partitions revoked"),
            Err(error) => {
                self.commit_failed(error);
                warn!(topic = self.topic, ?partitions, %error, "partitions were lost; what was acked since the last commit may be handled again");
            }
        }
        self.feed.committed(committed.map_err(|cause| from_kafka("commit", cause)));
    }

    fn of<'a>(&'a self, list: &'a TopicPartitionList) -> Vec<i32> {
        list.elements()
            .iter()
            .filter(|element| element.topic() == self.topic)
            .map(|element| element.partition())
            .collect()
    }
}

impl Feed {
    /// Takes partitions over, with what earlier owners have noted as done.
    pub(super) fn assign(&self, partitions: impl Iterator<Item = (i32, Noted)>) {
        let mut state = self.lock();
        for (number, noted) in partitions {
            state.purge(|entry| entry.partition == number);
            let generation = state.generation();
            let old = state.partitions.insert(number, Partition::new(generation, noted));
            state.held_bytes -= old.map_or(0, |mut old| old.held.lose());
        }
    }

    /// Hands out nothing more of these partitions, and waits until nothing of them is out; answers how much still is.
    pub(super) fn drain(&self, partitions: &[i32], budget: Duration) -> usize {
        let (mut run, mut state) = self.lock_all();
        state.purge(|entry| partitions.contains(&entry.partition));
        state.take_back(&mut run, partitions);
        drop(run);
        for (_, partition) in state.of(partitions) {
            partition.leaving = true;
        }
        let busy =
            |state: &mut State| state.stop.is_none() && state.of(partitions).any(|(_, partition)| partition.out > 0);
        let waited = self.drained.wait_timeout_while(state, budget, busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.of(partitions).map(|(_, partition)| partition.out).sum()
    }

    /// Gives these partitions up: from now on, what belongs to them is lost. Answers what of them is still to be committed.
    pub(super) fn forget(&self, partitions: &[i32]) -> Vec<Commit> {
        let (mut run, mut state) = self.lock_all();
        state.purge(|entry| partitions.contains(&entry.partition));
        state.take_back(&mut run, partitions);
        let mut commits = Vec::new();
        for number in partitions {
            let Some(mut partition) = state.partitions.remove(number) else { continue };
            state.held_bytes -= partition.held.lose();
            let dirty = partition.dirty;
            commits.extend(partition.commit(*number).filter(|_| dirty));
        }
        commits
    }

    /// The partitions that are ours, and since which generation.
    pub(super) fn generations(&self) -> BTreeMap<i32, u64> {
        self.lock().partitions.iter().map(|(number, partition)| (*number, partition.generation)).collect()
    }
}
