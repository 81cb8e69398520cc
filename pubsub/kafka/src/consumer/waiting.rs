//! Partitions that wait for one message. Nothing else would tell why nothing more comes of them, so they are told of, again
//! and again, until the message is done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::feed::Feed;
use crate::metrics::Consumed;

/// How often partitions are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// What waits no longer than this is a slow handler, and no news.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often those that still wait are told of.
const AGAIN: Duration = Duration::from_secs(60);

/// A partition of which nothing more is fetched until its lowest message is done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Halted {
    pub(super) partition: i32,
    /// The lowest message that is not done.
    pub(super) offset: i64,
    /// How many messages were fetched from that on.
    pub(super) ahead: usize,
}

/// Looks after partitions that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    next_look: Instant,
    known: BTreeMap<i32, Known>,
}

#[derive(Debug)]
struct Known {
    since: Instant,
    /// When to tell of it next.
    tell: Instant,
    told: bool,
}

impl Waiting {
    pub(super) fn new(now: Instant) -> Self {
        Self { next_look: now + EVERY, known: BTreeMap::new() }
    }

    /// Tells of what waits, if it is time to.
    pub(super) fn look(&mut self, now: Instant, feed: &Feed, topic: &str, consumed: &Consumed) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + EVERY;
        let halted = feed.halted();
        consumed.waiting(halted.len());
        for partition in self.ended(&halted) {
            info!(topic, partition, "partition goes on");
        }
        for (Halted { partition, offset, ahead }, since) in self.due(now, halted) {
            warn!(
                topic,
                partition,
                offset,
                ahead,
                ?since,
                "partition waits: nothing more is fetched of it until the message at this offset is done. `/debug/pubsub` says \
                 what that does; if it is a dead letter that its topic refuses, raise that topic's `max.message.bytes`"
            );
        }
    }

    /// Forgets what no longer waits; answers what of it was told of.
    fn ended(&mut self, halted: &[Halted]) -> Vec<i32> {
        let ended =
            self.known.extract_if(.., |partition, _| !halted.iter().any(|halted| halted.partition == *partition));
        ended.filter(|(_, known)| known.told).map(|(partition, _)| partition).collect()
    }

    /// What is to be told of now, and for how long it has waited.
    fn due(&mut self, now: Instant, halted: Vec<Halted>) -> Vec<(Halted, Duration)> {
        let due = halted.into_iter().filter_map(|halted| {
            let new = || Known { since: now, tell: now + PATIENCE, told: false };
            let known = self.known.entry(halted.partition).or_insert_with(new);
            if now < known.tell {
                return None;
            }
            (known.tell, known.told) = (now + AGAIN, true);
            Some((halted, now - known.since))
        });
        due.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_of_after_a_while_and_again_and_when_it_ends() {
        let begin = Instant::now();
        let mut waiting = Waiting::new(begin);
        let told: Vec<u64> = (0..100)
            .filter(|second| {
                let halted = vec![Halted { partition: 3, offset: 42, ahead: 10_000 }];
                assert!(waiting.ended(&halted).is_empty());
                !waiting.due(begin + Duration::from_secs(*second), halted).is_empty()
            })
            .collect();
        assert_eq!(told, [10, 70]);
        assert_eq!(waiting.ended(&[]), [3]);
        assert!(waiting.ended(&[]).is_empty());
    }
}
