//! A lane: handles one message at a time, and settles it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainspring_daemon::{BoxFuture, Tally};
use mainspring_observe::correlation::{self, Correlation};
use mainspring_observe::panics;
use mainspring_observe::trace::TraceContext;
use tokio::time::Instant;
use tracing::{error, warn};

use super::board::{Board, Doing};
use super::dead_letter::{DeadLetter, Watcher};
use super::job::Job;
use super::slot::Slot;
use super::wake::LaneWake;
use crate::batch::Hold;
use crate::driver::{Capabilities, Endpoint, Outgoing, Progress};
use crate::error::Chain;
use crate::failure::Verdict;
use crate::metrics::{Class, Fate, Handled};
use crate::{
    Confirmation, DecodeError, Delivery, Error, ErrorKind, Failure, Outbox, Policy, Publisher, Request, Undecodable,
};

/// What the lanes of a route have in common.
pub(super) struct Shared {
    pub(super) route: &'static str,
    pub(super) policy: Policy,
    /// Whether the handler takes several messages at once.
    pub(super) in_batches: bool,
    pub(super) dead_letter: Option<Publisher>,
    pub(super) watcher: Option<Watcher>,
    pub(super) capabilities: Capabilities,
    pub(super) source: Arc<Endpoint>,
    pub(super) exactly_once: bool,
    pub(super) progress: Option<Arc<dyn Progress>>,
    pub(super) metrics: Handled,
    pub(super) settled: Tally,
    pub(super) returned: Tally,
    pub(super) board: Board,
}

pub(super) struct Lane {
    index: usize,
    slot: Box<dyn Slot>,
    pub(super) wake: Arc<LaneWake>,
    waker: Waker,
    /// Whether the message waits for its batch, when the handler takes several.
    hold: Option<Arc<Hold>>,
    state: State,
    /// When the last message ended, if that was in this turn: the next one begins then.
    ended: Option<Instant>,
    /// When to be polled even if nothing has happened.
    pub(super) deadline: Option<Instant>,
}

enum State {
    Idle,
    Running(Job, Handling),
    Burying { job: Job, correlation: Correlation, reason: String, publish: BoxFuture<Result<(), Error>> },
}

/// A handler at work.
struct Handling {
    correlation: Correlation,
    since: Instant,
    /// Whether a layer holds the message back: the handler's time has not begun.
    held: bool,
    outbox: Option<Outbox>,
}

/// Messages that a lane may handle before it lets the others of its worker have a turn.
const TURN: usize = 16;

impl Lane {
    pub(super) fn new(index: usize, slot: Box<dyn Slot>, wake: Arc<LaneWake>) -> Self {
        let waker = Waker::from(Arc::clone(&wake));
        Self { index, slot, wake, waker, hold: None, state: State::Idle, ended: None, deadline: None }
    }

    /// Goes on with the message, and with the next ones, as far as that is possible without waiting.
    pub(super) fn poll(&mut self, shared: &Shared) {
        self.ended = None;
        for _ in 0..TURN {
            let more = match std::mem::replace(&mut self.state, State::Idle) {
                State::Idle => match shared.board.take(self.index, self.ended.take()) {
                    Some((job, since)) => {
                        let handling = self.begin(shared, &job, since);
                        self.run(shared, job, handling)
                    }
                    None => return,
                },
                State::Running(job, handling) => self.run(shared, job, handling),
                State::Burying { job, correlation, reason, publish } => {
                    self.bury(shared, job, correlation, reason, publish)
                }
            };
            if !more {
                return;
            }
        }
        self.wake.wake_lane();
    }

    fn begin(&mut self, shared: &Shared, job: &Job, since: Instant) -> Handling {
        let message = job.delivery.shared();
        if job.attempt > 1 {
            shared.metrics.redelivered.inc();
        }
        let parent = message.attributes.get("traceparent").and_then(|text| TraceContext::parse(text.as_bytes()));
        let trace = parent.map_or_else(TraceContext::new, |parent| parent.child());
        let correlation = Correlation { trace: Some(trace), request_id: None };
        let request = Request::new(message).with_attempt(job.attempt);
        self.hold = shared.in_batches.then(Arc::default);
        let outbox = shared.exactly_once.then(|| Outbox::new(Arc::clone(&shared.source)));
        let request = request.with_position(job.delivery.position()).with_route(shared.route);
        self.slot.start(request.with_hold(self.hold.clone()).with_outbox(outbox.clone()));
        Handling { correlation, since, held: false, outbox }
    }

    /// Goes on with the handler; true when it is done and there may be more to do.
    fn run(&mut self, shared: &Shared, mut job: Job, mut handling: Handling) -> bool {
        // A batch may have begun since.
        let held = handling.held && !self.has_begun();
        if held && shared.board.is_draining() && self.withdraw() {
            return self.return_held(shared, job, &handling.correlation);
        }
        if held && shared.board.parks() {
            self.deadline = self.keep(shared, &mut job, Instant::now());
            self.state = State::Running(job, handling);
            return false;
        }
        let mut cx = Context::from_waker(&self.waker);
        let polled = correlation::lend(&mut handling.correlation, || self.slot.poll(&mut cx));
        let result = match polled {
            Poll::Ready(result) => result,
            Poll::Pending => {
                let now = Instant::now();
                self.note_held(shared, &mut handling, now);
                if handling.held && shared.board.is_draining() && self.withdraw() {
                    return self.return_held(shared, job, &handling.correlation);
                }
                let timeout = handling.since + shared.policy.timeout;
                if handling.held || now < timeout {
                    let renew = self.keep(shared, &mut job, now);
                    self.deadline = renew.into_iter().chain((!handling.held).then_some(timeout)).min();
                    self.state = State::Running(job, handling);
                    return false;
                }
                correlation::with(&handling.correlation, || self.slot.clear());
                Err(Failure::timed_out(shared.policy.timeout))
            }
        };
        let Handling { correlation, since, outbox, .. } = handling;
        // What a handler leaves behind, in a task of its own say, comes too late for this attempt.
        let outbox = outbox.map(|outbox| outbox.close());
        self.deadline = None;
        let class = result.as_ref().err().map_or(Class::Ok, |failure| failure.class);
        let now = Instant::now();
        self.ended = Some(now);
        shared.metrics.processed(class, (now - since).as_secs_f64());
        match result {
            Ok(()) => {
                self.settle(shared, job, Fate::Acked, |delivery| match outbox {
                    Some(outbox) => delivery.commit(outbox),
                    None => delivery.ack(),
                });
            }
            Err(failure) => {
                let scope = correlation.clone();
                correlation::with(&scope, || self.fail(shared, job, correlation, &failure));
            }
        }
        true
    }

    /// Whether the message has come through to the handler.
    fn has_begun(&self) -> bool {
        self.slot.has_begun() && self.hold.as_ref().is_none_or(|hold| !hold.waits())
    }

    /// Keeps the message from coming through to the handler; false when it just has.
    fn withdraw(&self) -> bool {
        self.hold.as_ref().is_none_or(|hold| hold.withdraw())
    }

    /// Gives a message back that a layer still holds; there may be more to do.
    fn return_held(&mut self, shared: &Shared, job: Job, correlation: &Correlation) -> bool {
        correlation::with(correlation, || self.slot.clear());
        self.deadline = None;
        self.settle(shared, job, Fate::Returned, Delivery::release);
        true
    }

    /// Keeps the lease; answers when to look at it again.
    fn keep(&self, shared: &Shared, job: &mut Job, now: Instant) -> Option<Instant> {
        let before = job.lease;
        let next = job.keep(now);
        if job.lease != before {
            shared.board.renewed(self.index, job.lease);
        }
        next
    }

    /// Notes whether a layer holds the message back, and has the handler's time begin when it no longer does.
    fn note_held(&self, shared: &Shared, handling: &mut Handling, now: Instant) {
        let held = !self.has_begun();
        if held == handling.held {
            return;
        }
        handling.held = held;
        if !held {
            handling.since = now;
        }
        shared.board.note(self.index, if held { Doing::Held } else { Doing::Handling });
    }

    fn fail(&mut self, shared: &Shared, job: Job, correlation: Correlation, failure: &Failure) {
        let (route, attempt, id) = (shared.route, job.attempt, job.delivery.message().id.clone());
        let chain = Chain(failure.error()).to_string();
        if shared.board.is_draining() {
            warn!(route, message_id = %id, attempt, error = chain, "handler failed while stopping; message is returned");
            self.settle(shared, job, Fate::Returned, Delivery::release);
            return;
        }
        let last = attempt >= shared.policy.attempts;
        let (reject, after) = match failure.verdict {
            Verdict::Retry { after } => (false, after),
            Verdict::Reject => (true, None),
            Verdict::Undecodable => (shared.policy.undecodable == Undecodable::Reject, None),
        };
        if !reject && !last {
            let pause = after.unwrap_or_else(|| shared.policy.backoff.pause(attempt));
            warn!(route, message_id = %id, attempt, error = chain, retry_in = ?pause, "handler failed; message will be tried again");
            return self.retry(shared, job, pause);
        }
        let field = failure.error().downcast_ref::<DecodeError>().map(DecodeError::field);
        error!(route, message_id = %id, attempt, error = chain, field, "message is given up");
        match &shared.dead_letter {
            Some(to) => {
                let letter = DeadLetter {
                    message: job.delivery.message(),
                    reason: &chain,
                    attempts: attempt,
                    position: job.delivery.position(),
                    route,
                };
                let mut letter = letter.letter(&shared.source);
                if shared.exactly_once && to.prepare(&mut letter).is_ok() {
                    let outbox = vec![Outgoing::new(to.endpoint(), letter)];
                    return self.give_up(shared, job, Fate::DeadLettered, &chain, |delivery| delivery.commit(outbox));
                }
                let to = to.clone();
                let publish = Box::pin(async move { to.publish(letter).await.map(drop) });
                shared.board.note(self.index, Doing::Burying);
                self.state = State::Burying { job, correlation, reason: chain, publish };
            }
            None => {
                let reason = chain.clone();
                self.give_up(shared, job, Fate::Rejected, &chain, |delivery| delivery.reject(reason));
            }
        }
    }

    /// Has a message come again after a pause: from the broker if it can do that, else from here.
    fn retry(&mut self, shared: &Shared, job: Job, pause: Duration) {
        if shared.capabilities.nack_delay {
            self.settle(shared, job, Fate::Retried, |delivery| delivery.nack_after(pause));
            return;
        }
        match shared.board.delay(self.index, job, Instant::now() + pause) {
            None => shared.metrics.fate(Fate::Retried),
            Some(job) => {
                self.settle(shared, job, Fate::Returned, Delivery::release);
            }
        }
    }

    /// Goes on publishing a dead letter; true when that is done.
    fn bury(
        &mut self,
        shared: &Shared,
        mut job: Job,
        correlation: Correlation,
        reason: String,
        mut publish: BoxFuture<Result<(), Error>>,
    ) -> bool {
        let mut cx = Context::from_waker(&self.waker);
        let polled = correlation::with(&correlation, || publish.as_mut().poll(&mut cx));
        let Poll::Ready(result) = polled else {
            self.deadline = self.keep(shared, &mut job, Instant::now());
            self.state = State::Burying { job, correlation, reason, publish };
            return false;
        };
        self.deadline = None;
        correlation::with(&correlation, || match result {
            Ok(()) => self.give_up(shared, job, Fate::DeadLettered, &reason, Delivery::ack),
            Err(error) => {
                let (route, id) = (shared.route, &job.delivery.message().id);
                let error = Chain(&error).to_string();
                if shared.board.is_draining() {
                    warn!(route, message_id = %id, error, "no dead letter was made; message is returned");
                    self.settle(shared, job, Fate::Returned, Delivery::release);
                } else {
                    error!(route, message_id = %id, error, "no dead letter was made; message will be tried again");
                    let pause = shared.policy.backoff.max;
                    self.retry(shared, job, pause);
                }
            }
        });
        true
    }

    /// Settles a message for good without its having been handled, and tells whoever wants to know.
    fn give_up(
        &self,
        shared: &Shared,
        job: Job,
        fate: Fate,
        reason: &str,
        outcome: impl FnOnce(Delivery) -> Confirmation,
    ) {
        let (message, attempts, position) = (job.delivery.shared(), job.attempt, job.delivery.position());
        if self.settle(shared, job, fate, outcome) {
            watch(shared, &DeadLetter { message: &message, reason, attempts, position, route: shared.route });
        }
    }

    /// Settles a message; false when it is known by now that the broker did not take the settlement.
    fn settle(&self, shared: &Shared, job: Job, fate: Fate, outcome: impl FnOnce(Delivery) -> Confirmation) -> bool {
        let (delivery, claim) = job.part();
        let confirmation = outcome(delivery);
        let error = confirmation.error();
        match error {
            Some(_) => {}
            None if fate == Fate::Returned => shared.returned.add(1),
            None => shared.settled.add(1),
        }
        shared.metrics.fate(match error.map(Error::kind) {
            None => fate,
            Some(ErrorKind::Lost) => Fate::Lost,
            Some(_) => Fate::Retried,
        });
        shared.metrics.inflight.dec();
        let finished = shared.board.finish(self.index, &claim);
        if let Some(error) = error {
            let id = finished.map(|finished| finished.message.id.to_string());
            warn!(route = shared.route, message_id = id, error = %Chain(error), "settlement did not land");
        }
        error.is_none()
    }

    /// Drops what the lane does; its message goes back.
    pub(super) fn give_back(&mut self, shared: &Shared) {
        let (job, correlation) = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => return,
            State::Running(job, handling) => (job, handling.correlation),
            State::Burying { job, correlation, .. } => (job, correlation),
        };
        correlation::with(&correlation, || {
            self.slot.clear();
            let (id, attempt) = (&job.delivery.message().id, job.attempt);
            warn!(route = shared.route, message_id = %id, attempt, "handler was cut off at the deadline; message is returned");
            self.settle(shared, job, Fate::Returned, Delivery::release);
        });
    }
}

fn watch(shared: &Shared, letter: &DeadLetter<'_>) {
    let Some(Watcher(watcher)) = &shared.watcher else { return };
    if catch_unwind(AssertUnwindSafe(|| watcher(letter))).is_err() {
        panics::count("message");
        error!(route = shared.route, "the function given to `on_dead_letter` panicked");
    }
}
