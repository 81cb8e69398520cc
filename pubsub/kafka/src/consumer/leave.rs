//! How a consumer leaves: it commits, tells its group, and is gone before others are kept waiting.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use tracing::warn;

use super::join::ANSWERS;
use super::worker::Worker;
use crate::error::lost;
use crate::options::Membership;

/// How long leaving the group may take when nobody has set a deadline.
pub(super) const LEAVE: Duration = Duration::from_secs(5);
/// The pause between two looks at whether the client is done with something.
const STEP: Duration = Duration::from_millis(10);

impl Worker<'_> {
    /// Commits, leaves the group, and waits until the broker knows.
    pub(super) fn leave(&mut self, deadline: Instant) {
        self.be_member(deadline);
        // Two commits at once could land in either order.
        while self.consumer.context().committing.load(Relaxed) && Instant::now() < deadline {
            drop(self.consumer.poll(STEP));
        }
        if self.feed.is_transactional() {
            let all = match self.consumer.context().transact_all(&self.consumer, deadline) {
                Ok(all) => all,
                Err(fault) => {
                    warn!(topic = self.options.topic, error = %fault, "the last transaction failed");
                    false
                }
            };
            self.feed.committed(if all { Ok(()) } else { Err(lost()) });
        } else {
            self.commit_last(deadline);
        }
        // A static member goes without a word, which the client does only when it is closed: the group waits for it.
        if self.options.membership == Membership::Static {
            return;
        }
        self.consumer.unsubscribe();
        while !self.feed.generations().is_empty() && Instant::now() < deadline {
            drop(self.consumer.poll(STEP));
        }
    }

    /// Waits until the broker has answered the request to join. Before that the client does not know that it is a member,
    /// and closes without a word: the broker would wait for it, and keep partitions for it, until its session ends.
    fn be_member(&self, deadline: Instant) {
        let end = deadline.min(Instant::now() + LEAVE);
        let mut answers = 0;
        while answers < ANSWERS && !self.consumer.context().joined.load(Relaxed) && Instant::now() < end {
            answers += u32::from(self.coordinator_answers());
            drop(self.consumer.poll(Duration::ZERO));
        }
    }

    /// Closes the client. It cannot while anything of it is alive elsewhere, hence the order.
    pub(super) fn close(self) {
        let Self { consumer, queues, .. } = self;
        drop(queues);
        drop(consumer);
    }
}
