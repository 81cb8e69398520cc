//! What becomes of a message whose handler failed.

use std::task::{Context, Poll};
use std::time::Duration;

use mainspring_daemon::Chain;
use mainspring_observe::correlation;
use tokio::time::Instant;
use tracing::field::display;
use tracing::{error, warn};

use super::call::{Burial, Call};
use super::dead_letter::{DeadLetter, GivenUp};
use super::lane::Lane;
use super::ledger::Doing;
use super::shared::Shared;
use crate::driver::{Lease, Outcome, Outgoing};
use crate::failure::Verdict;
use crate::metrics::Fate;
use crate::{Confirmation, DecodeError, Error, Failure, Undecodable};

/// What keeps a dead letter from being made, for good, is for people to mend.
const WILL_NOT_PASS: &str = ": this does not pass by itself. Until the place for dead letters takes it (see its limit on \
     the size of messages, and its permissions), its key waits behind it";

impl Lane {
    /// Has the message tried again or given up, as the policy says.
    pub(super) fn fail(&mut self, shared: &Shared, failure: &Failure) {
        let correlation = self.call.correlation.clone();
        correlation::with(&correlation, || self.judge(shared, failure));
    }

    fn judge(&mut self, shared: &Shared, failure: &Failure) {
        let Some(job) = &self.job else { return };
        let (route, attempt, id) = (shared.route, job.attempt, job.delivery.message().id.clone());
        let chain = Chain(failure.error()).to_string();
        if shared.board.is_draining() {
            warn!(route, message_id = %id, attempt, error = chain, "handler failed while stopping; message is returned");
            self.settle(shared, Fate::Returned, |lease| lease.settle(Outcome::Return));
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
            return self.retry(shared, pause, Fate::Retried);
        }
        let field = failure.error().downcast_ref::<DecodeError>().map(DecodeError::field);
        let (source, position) = (&shared.source, job.delivery.position().map(display));
        let dead_letter = shared.dead_letter.as_ref().map_or("rejected".to_owned(), |to| to.endpoint().to_string());
        error!(route, %source, position, message_id = %id, attempt, error = chain, field, dead_letter, "message is given up");
        self.give_up(shared, chain);
    }

    /// Has a message come again after a pause: from the broker if it can do that, else from here.
    fn retry(&mut self, shared: &Shared, pause: Duration, fate: Fate) {
        if shared.capabilities.nack_delay {
            self.settle(shared, fate, |lease| lease.settle(Outcome::Nack { after: Some(pause) }));
            return;
        }
        let Some(job) = self.job.take() else { return };
        match shared.board.delay(self.index, job, Instant::now() + pause) {
            None => shared.metrics.fate(fate),
            Some(job) => {
                self.job = Some(job);
                self.settle(shared, Fate::Returned, |lease| lease.settle(Outcome::Return));
            }
        }
    }

    /// Makes a dead letter of the message, or has the broker do it.
    fn give_up(&mut self, shared: &Shared, reason: String) {
        let Some(job) = &self.job else { return };
        let dead = DeadLetter {
            message: job.delivery.message(),
            reason: &reason,
            attempts: job.attempt,
            position: job.delivery.position(),
            route: shared.route,
        };
        let Some(to) = &shared.dead_letter else {
            let letter = dead.letter(&shared.source, &shared.capabilities.limits);
            let outcome = Outcome::Reject { reason: reason.clone(), letter: Some(Box::new(letter)) };
            return self.settle_unhandled(shared, Fate::Rejected, reason, |lease| lease.settle(outcome));
        };
        let mut letter = dead.letter(&shared.source, &to.capabilities().limits);
        if shared.exactly_once && to.prepare(&mut letter).is_ok() {
            let outbox = vec![Outgoing::new(to.endpoint(), letter)];
            let commit = |lease: Box<dyn Lease>| lease.commit(outbox);
            return self.settle_unhandled(shared, Fate::DeadLettered, reason, commit);
        }
        let to = to.clone();
        let publish = Box::pin(async move { to.publish(letter).await.map(drop) });
        self.call.burial = Some(Burial { reason, publish });
        shared.board.note(self.index, Doing::Burying);
    }

    /// Goes on publishing a dead letter.
    pub(super) fn bury(&mut self, shared: &Shared) -> Poll<()> {
        let Call { correlation, burial, .. } = &mut self.call;
        let Some(Burial { publish, .. }) = burial else { return Poll::Ready(()) };
        let mut cx = Context::from_waker(&self.waker);
        let Poll::Ready(result) = correlation::lend(correlation, || publish.as_mut().poll(&mut cx)) else {
            self.deadline = self.keep_lease(shared, Instant::now());
            return Poll::Pending;
        };
        self.deadline = None;
        let correlation = correlation.clone();
        let reason = burial.take().map(|burial| burial.reason).unwrap_or_default();
        correlation::with(&correlation, || match result {
            Ok(()) => self.settle_unhandled(shared, Fate::DeadLettered, reason, |lease| lease.settle(Outcome::Ack)),
            Err(error) => self.keep_unburied(shared, &error),
        });
        Poll::Ready(())
    }

    /// No dead letter could be made: the message stays where it came from.
    fn keep_unburied(&mut self, shared: &Shared, cause: &Error) {
        let Some(job) = &self.job else { return };
        let (route, id) = (shared.route, &job.delivery.message().id);
        let error = Chain(cause).to_string();
        if shared.board.is_draining() {
            warn!(route, message_id = %id, error, "no dead letter was made; message is returned");
            self.settle(shared, Fate::Returned, |lease| lease.settle(Outcome::Return));
        } else {
            let pause = shared.policy.backoff.max;
            let hint = if cause.is_retryable() { "" } else { WILL_NOT_PASS };
            error!(route, message_id = %id, error, retry_in = ?pause, "no dead letter was made; message is held and will be tried again{hint}");
            self.retry(shared, pause, Fate::Stuck);
        }
    }

    /// Settles a message for good without its having been handled, and tells whoever wants to know.
    fn settle_unhandled(
        &mut self,
        shared: &Shared,
        fate: Fate,
        reason: String,
        how: impl FnOnce(Box<dyn Lease>) -> Confirmation,
    ) {
        let Some(job) = &self.job else { return };
        let given_up = GivenUp {
            message: job.delivery.shared(),
            reason,
            attempts: job.attempt,
            position: job.delivery.position(),
            correlation: self.call.correlation.clone(),
        };
        self.settle_as(shared, fate, Some(Box::new(given_up)), how);
    }
}
