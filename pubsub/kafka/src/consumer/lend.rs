//! The side of those who handle: messages are lent, and settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use mainspring_pubsub::driver::{Confirmation, Delivery, Outcome};
use mainspring_pubsub::{Error, ErrorKind, Position};
use tokio::time::Instant;

use super::feed::{Feed, MAX_BYTES, MAX_MESSAGES};
use super::lease::KafkaLease;
use super::partition::Partition;
use super::state::{Lent, Queued, owned};
use crate::SYSTEM;
use crate::error::error;

/// When a rejected message comes again, since there is no place for dead letters.
const REJECT_PAUSE: Duration = Duration::from_secs(10);

/// Messages, and bytes of them, that the reader takes over at once: the lock that everybody wants is taken once for them.
const RUN: usize = 64;
const RUN_BYTES: usize = 64 << 10;

/// Nothing to hand out: for good, or until a waker or the clock says so.
pub(super) enum Nothing {
    Closed,
    Failed(Error),
    Until(Option<Instant>),
}

impl Feed {
    /// Hands out the oldest message that is ready. Otherwise wakes `cx` when there is one.
    pub(super) fn poll_lend(self: &Arc<Self>, cx: &mut Context<'_>) -> Result<Delivery, Nothing> {
        let mut run = self.run();
        if run.is_empty() {
            self.refill(&mut run, cx)?;
        }
        let Some(entry) = run.pop_front() else { return Err(Nothing::Until(None)) };
        drop(run);
        let mut entry = entry.lend();
        entry.attempt += 1;
        let (message, attempt) = (Arc::clone(&entry.message), entry.attempt);
        let position = u32::try_from(entry.partition).ok().zip(u64::try_from(entry.offset).ok());
        let delivery = Delivery::new(message, Box::new(KafkaLease::new(Arc::clone(self), entry))).with_attempt(attempt);
        Ok(match position {
            Some((partition, offset)) => delivery.with_position(Position::new(partition, offset)),
            None => delivery,
        })
    }

    /// Takes over the next messages that are ready, at least one. From now on they count as out.
    fn refill(&self, run: &mut VecDeque<Queued>, cx: &mut Context<'_>) -> Result<(), Nothing> {
        let mut state = self.lock();
        let due = state.tick();
        if state.ready.is_empty() {
            if let Some(failure) = state.failure.take() {
                state.closed = true;
                return Err(Nothing::Failed(failure));
            }
            if state.closed {
                return Err(Nothing::Closed);
            }
            if let Some((kind, what)) = state.down.as_ref().or(state.fault.as_ref()) {
                return Err(Nothing::Failed(error(*kind, "receive", what.clone()).with_retryable(true)));
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => state.waker = Some(cx.waker().clone()),
            }
            return Err(Nothing::Until(due));
        }
        let mut bytes = 0;
        while run.len() < RUN && bytes < RUN_BYTES {
            let Some(entry) = state.ready.pop_front() else { break };
            bytes += entry.size;
            if let Some(partition) = owned(&mut state.partitions, &entry) {
                partition.out += 1;
            }
            run.push_back(entry);
        }
        state.bytes -= bytes;
        let hungry = state.hungry && state.ready.len() <= MAX_MESSAGES / 2 && state.bytes <= MAX_BYTES / 2;
        if hungry {
            state.hungry = false;
        }
        drop(state);
        if hungry {
            self.wake_worker();
        }
        Ok(())
    }

    pub(super) fn settle(&self, entry: Lent, outcome: Outcome) -> Confirmation {
        match outcome {
            Outcome::Ack => self.ack(&entry),
            outcome => self.give_back(entry, outcome),
        }
    }

    fn ack(&self, entry: &Lent) -> Confirmation {
        let mut state = self.lock();
        let Some(partition) = owned(&mut state.partitions, entry) else { return Confirmation::lost(SYSTEM) };
        self.back(partition);
        let goes_on = partition.finish(entry.number);
        drop(state);
        if goes_on {
            self.wake_worker();
        }
        Confirmation::settled()
    }

    fn give_back(&self, mut entry: Lent, outcome: Outcome) -> Confirmation {
        let (mut run, mut state) = self.lock_all();
        let state = &mut *state;
        let Some(partition) = owned(&mut state.partitions, &entry) else { return Confirmation::lost(SYSTEM) };
        let rejected = matches!(outcome, Outcome::Reject { .. });
        let pause = match outcome {
            Outcome::Nack { after } => after.unwrap_or_default(),
            Outcome::Reject { .. } => REJECT_PAUSE,
            // Not handled, whatever it is called: again, and the attempt does not count.
            _ => {
                entry.attempt -= 1;
                Duration::ZERO
            }
        };
        if pause.is_zero() && !partition.leaving && run.back().is_some_and(|last| entry.order < last.order) {
            // Still out, and next in its turn.
            let place = run.partition_point(|other| other.order < entry.order);
            run.insert(place, entry.wait());
        } else {
            self.back(partition);
            // What is about to leave comes again elsewhere.
            if !partition.leaving {
                state.bytes += entry.size;
                match pause.is_zero() {
                    true => state.make_ready(entry.wait()),
                    false => drop(state.delayed.insert((Instant::now() + pause, entry.order), entry.wait())),
                }
            }
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
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
    pub(super) fn holds(&self, entry: &Lent) -> bool {
        owned(&mut self.lock().partitions, entry).is_some()
    }
}
