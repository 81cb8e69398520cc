//! The side of those who handle: messages are lent, and settled.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use mainspring_pubsub::driver::{Confirmation, Delivery, Outcome};
use mainspring_pubsub::{Error, ErrorKind, Position};
use tokio::time::Instant;

use super::feed::{Feed, MAX_BYTES, MAX_MESSAGES};
use super::lease::KafkaLease;
use super::partition::Partition;
use super::state::{Entry, owned};
use crate::SYSTEM;
use crate::error::error;

/// When a rejected message comes again, since there is no place for dead letters.
const REJECT_PAUSE: Duration = Duration::from_secs(10);

/// Nothing to hand out: for good, or until a waker or the clock says so.
pub(super) enum Nothing {
    Closed,
    Failed(Error),
    Until(Option<Instant>),
}

impl Feed {
    /// Hands out the oldest message that is ready. Otherwise wakes `cx` when there is one.
    pub(super) fn poll_lend(self: &Arc<Self>, cx: &mut Context<'_>) -> Result<Delivery, Nothing> {
        let mut state = self.lock();
        let due = state.tick();
        let Some(mut entry) = state.ready.pop_front() else {
            if let Some(failure) = state.failure.take() {
                state.closed = true;
                return Err(Nothing::Failed(failure));
            }
            if state.closed {
                return Err(Nothing::Closed);
            }
            if let Some((kind, what)) = &state.down {
                return Err(Nothing::Failed(error(*kind, "receive", what.clone()).with_retryable(true)));
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => state.waker = Some(cx.waker().clone()),
            }
            return Err(Nothing::Until(due));
        };
        state.bytes -= entry.size;
        entry.attempt += 1;
        if let Some(partition) = state.partitions.get_mut(&entry.partition) {
            partition.out += 1;
        }
        let hungry = state.hungry && state.ready.len() <= MAX_MESSAGES / 2 && state.bytes <= MAX_BYTES / 2;
        if hungry {
            state.hungry = false;
        }
        drop(state);
        if hungry {
            self.wake_worker();
        }
        let (message, attempt) = (Arc::clone(&entry.message), entry.attempt);
        let position = u32::try_from(entry.partition).ok().zip(u64::try_from(entry.offset).ok());
        let delivery = Delivery::new(message, Box::new(KafkaLease::new(Arc::clone(self), entry))).with_attempt(attempt);
        Ok(match position {
            Some((partition, offset)) => delivery.with_position(Position::new(partition, offset)),
            None => delivery,
        })
    }

    pub(super) fn settle(&self, mut entry: Entry, outcome: Outcome) -> Confirmation {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(partition) = owned(&mut state.partitions, &entry) else { return Confirmation::lost(SYSTEM) };
        self.back(partition);
        let rejected = matches!(outcome, Outcome::Reject { .. });
        let pause = match outcome {
            Outcome::Ack => {
                partition.finish(entry.number);
                if std::mem::take(&mut state.hungry) {
                    self.wake_worker();
                }
                return Confirmation::settled();
            }
            Outcome::Nack { after } => after.unwrap_or_default(),
            Outcome::Reject { .. } => REJECT_PAUSE,
            // Not handled, whatever it is called: again, and the attempt does not count.
            _ => {
                entry.attempt -= 1;
                Duration::ZERO
            }
        };
        // What is about to leave comes again elsewhere.
        if !partition.leaving {
            state.bytes += entry.size;
            match pause.is_zero() {
                true => state.make_ready(entry),
                false => drop(state.delayed.insert((Instant::now() + pause, entry.order), entry)),
            }
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
        if rejected {
            let what = "Kafka keeps no dead letters; the message is delivered again in 10 s. Give the router a publisher for them";
            return Confirmation::failed(error(ErrorKind::Unsupported, "reject", what));
        }
        Confirmation::settled()
    }

    /// A message of the partition is out no longer.
    pub(super) fn back(&self, partition: &mut Partition) {
        partition.out -= 1;
        if partition.leaving && partition.out == 0 {
            self.drained.notify_all();
        }
    }

    /// Whether the loan still stands.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        owned(&mut self.lock().partitions, entry).is_some()
    }
}
