//! When a consumer is a member of its group: others may have all the partitions, so it need not have any.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use tracing::debug;

use super::worker::Worker;
use crate::options::Protocol;

/// How many answers of the coordinator tell that it has answered the request to join, too. It answers in the order it was
/// asked. With the first answer it is known, and so the request has been sent; the second comes after that to the request.
pub(super) const ANSWERS: u32 = 2;

/// How long to wait for one answer of a coordinator that may not be known yet.
const STEP: Duration = Duration::from_millis(250);
/// When the coordinator is asked: whoever gets partitions has them by then, unless others are slow to give them up.
const ASK_AFTER: Duration = Duration::from_millis(500);

/// A consumer on its way into its group.
pub(super) struct Joining {
    answers: u32,
    ask_at: Instant,
}

impl Joining {
    pub(super) fn new() -> Self {
        Self { answers: 0, ask_at: Instant::now() + ASK_AFTER }
    }
}

impl Worker<'_> {
    /// Notes that the group has let us in, once it has.
    ///
    /// Its assignment tells, an empty one too. With the broker's own protocol the client keeps a first one that is empty to
    /// itself, so there it is asked whether the broker has answered.
    pub(super) fn join(&mut self) {
        let Some(Joining { mut answers, ask_at }) = self.joining else { return };
        let mut joined = self.consumer.context().joined.load(Relaxed);
        if !joined && self.protocol == Protocol::Consumer && Instant::now() >= ask_at {
            answers += u32::from(self.coordinator_answers());
            joined = answers >= ANSWERS;
            self.joining = Some(Joining { answers, ask_at: Instant::now() + STEP });
        }
        if joined {
            self.joining = None;
            self.feed.set_joined();
        }
    }

    /// Asks the group's coordinator something that changes nothing.
    pub(super) fn coordinator_answers(&self) -> bool {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.options.topic, 0);
        let answer = self.consumer.committed_offsets(list, STEP);
        if let Err(error) = &answer {
            debug!(topic = self.options.topic, %error, "not a member yet");
        }
        answer.is_ok()
    }
}
