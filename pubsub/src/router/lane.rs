//! A lane: handles one message at a time, and settles it.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use mainspring_observe::correlation;
use tokio::time::Instant;
use tracing::warn;

use super::call::Call;
use super::dead_letter::GivenUp;
use super::job::Job;
use super::ledger::Doing;
use super::shared::Shared;
use super::slot::Slot;
use super::wake::LaneWake;
use crate::driver::{Lease, Outcome};
use crate::metrics::{Class, Fate};
use crate::{Confirmation, Failure};

/// Handles one message at a time. What becomes of those whose handlers fail is in `failing.rs`.
pub(super) struct Lane {
    pub(super) index: usize,
    pub(super) slot: Box<dyn Slot>,
    pub(super) wake: Arc<LaneWake>,
    pub(super) waker: Waker,
    pub(super) job: Option<Job>,
    /// What is done with the message, or was done with the last one.
    pub(super) call: Call,
    /// Whether the last message was settled and is still on the board.
    settled: bool,
    /// When the last message ended, if that was in this turn: the next one begins then.
    ended: Option<Instant>,
    /// When to be polled even if nothing has happened.
    pub(super) deadline: Option<Instant>,
    /// Whether it has no message and waits to be given one.
    pub(super) is_free: bool,
}

/// Messages that a lane may handle before it lets the others of its worker have a turn.
const TURN: usize = 16;

impl Lane {
    pub(super) fn new(index: usize, slot: Box<dyn Slot>, wake: Arc<LaneWake>) -> Self {
        let waker = Waker::from(Arc::clone(&wake));
        Self {
            index,
            slot,
            wake,
            waker,
            job: None,
            call: Call::new(),
            settled: false,
            ended: None,
            deadline: None,
            is_free: true,
        }
    }

    /// Goes on with the message, and with the next ones, as far as that is possible without waiting. Ready when there is
    /// no other: the lane is free.
    pub(super) fn poll(&mut self, shared: &Shared) -> Poll<()> {
        self.ended = None;
        for _ in 0..TURN {
            if self.job.is_none() && !self.begin(shared) {
                return Poll::Ready(());
            }
            ready!(self.go_on(shared));
        }
        if mem::take(&mut self.settled) {
            shared.board.finish(self.index);
        }
        self.wake.wake_lane();
        Poll::Pending
    }

    /// Takes on the next message; false when there is none.
    fn begin(&mut self, shared: &Shared) -> bool {
        let mut now = self.ended.take();
        shared.board.next(self.index, mem::take(&mut self.settled), &mut now, &mut self.job);
        let Some(job) = &self.job else { return false };
        if job.attempt > 1 {
            shared.metrics.redelivered.inc();
        }
        self.call.begin(shared, job, now.unwrap_or_else(Instant::now));
        self.slot.start(self.call.request(job, shared.route));
        true
    }

    /// Goes on with the message; ready when the lane is done with it.
    fn go_on(&mut self, shared: &Shared) -> Poll<()> {
        if self.call.burial.is_some() { self.bury(shared) } else { self.handle(shared) }
    }

    /// Goes on with the handler.
    fn handle(&mut self, shared: &Shared) -> Poll<()> {
        // A batch may have begun since.
        if self.call.held && !self.call.has_begun(&*self.slot) {
            if shared.board.is_draining() && self.call.withdraw() {
                return self.return_held(shared);
            }
            if shared.board.parks() {
                self.deadline = self.keep_lease(shared, Instant::now());
                return Poll::Pending;
            }
        }
        let mut cx = Context::from_waker(&self.waker);
        let result = match correlation::lend(&mut self.call.correlation, || self.slot.poll(&mut cx)) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                let now = Instant::now();
                self.note_held(shared, now);
                if self.call.held && shared.board.is_draining() && self.call.withdraw() {
                    return self.return_held(shared);
                }
                let timeout = Some(self.call.since + shared.policy.timeout).filter(|_| !self.call.held);
                if timeout.is_none_or(|timeout| now < timeout) {
                    self.deadline = self.keep_lease(shared, now).into_iter().chain(timeout).min();
                    return Poll::Pending;
                }
                correlation::with(&self.call.correlation, || self.slot.clear());
                Err(Failure::timed_out(shared.policy.timeout))
            }
        };
        self.end(shared, result);
        Poll::Ready(())
    }

    /// Settles for a handler that is done.
    fn end(&mut self, shared: &Shared, result: Result<(), Failure>) {
        let outbox = self.call.close_outbox();
        let now = Instant::now();
        let class = result.as_ref().err().map_or(Class::Ok, |failure| failure.class);
        shared.metrics.processed(class, now - self.call.since);
        self.ended = Some(now);
        self.deadline = None;
        match result {
            Ok(()) => {
                self.settle(shared, Fate::Acked, |lease| match outbox {
                    Some(outbox) => lease.commit(outbox),
                    None => lease.settle(Outcome::Ack),
                });
            }
            Err(failure) => self.fail(shared, &failure),
        }
    }

    /// Gives a message back that a layer still holds.
    fn return_held(&mut self, shared: &Shared) -> Poll<()> {
        correlation::with(&self.call.correlation, || self.slot.clear());
        self.deadline = None;
        self.settle(shared, Fate::Returned, |lease| lease.settle(Outcome::Return));
        Poll::Ready(())
    }

    /// Keeps the lease; answers when to look at it again.
    pub(super) fn keep_lease(&mut self, shared: &Shared, now: Instant) -> Option<Instant> {
        let job = self.job.as_mut()?;
        let before = job.lease();
        let next = job.keep(now);
        if job.lease() != before {
            shared.board.renewed(self.index, job.lease());
        }
        next
    }

    /// Notes whether a layer holds the message back, and has the handler's time begin when it no longer does.
    fn note_held(&mut self, shared: &Shared, now: Instant) {
        let held = !self.call.has_begun(&*self.slot);
        if held == self.call.held {
            return;
        }
        self.call.held = held;
        if !held {
            self.call.since = now;
        }
        shared.board.note(self.index, if held { Doing::Held } else { Doing::Handling });
    }

    /// Settles the message.
    pub(super) fn settle(&mut self, shared: &Shared, fate: Fate, how: impl FnOnce(Box<dyn Lease>) -> Confirmation) {
        self.settle_as(shared, fate, None, how);
    }

    /// [`settle`](Self::settle) for a message that may be given up. It stays where it is until that is done.
    pub(super) fn settle_as(
        &mut self,
        shared: &Shared,
        fate: Fate,
        given_up: Option<Box<GivenUp>>,
        how: impl FnOnce(Box<dyn Lease>) -> Confirmation,
    ) {
        let Some(job) = &mut self.job else { return };
        let confirmation = job.delivery.settle_in_place(how);
        self.settled = true;
        shared.metrics.inflight.dec();
        shared.count_settled(confirmation, fate, given_up, || job.delivery.message().id.to_string());
        self.job = None;
    }

    /// Drops what the lane does; its message goes back.
    pub(super) fn give_back(&mut self, shared: &Shared) {
        let Some(job) = &self.job else { return };
        let (id, attempt) = (job.delivery.message().id.clone(), job.attempt);
        let correlation = self.call.correlation.clone();
        correlation::with(&correlation, || {
            self.slot.clear();
            warn!(route = shared.route, message_id = %id, attempt, "handler was cut off at the deadline; message is returned");
            self.settle(shared, Fate::Returned, |lease| lease.settle(Outcome::Return));
        });
        if mem::take(&mut self.settled) {
            shared.board.finish(self.index);
        }
    }
}
