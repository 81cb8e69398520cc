//! When a transaction is made, and of what: what handlers leave is kept until everything before it in its partition is done,
//! and then committed together with the position.
//!
//! So a transaction never waits for a handler, a handler that fails aborts none, and outputs come in the order of the
//! messages that they come from.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::ErrorKind;
use mainspring_pubsub::driver::{Confirmation, Outcome, Outgoing};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::{debug, warn};

use super::batch::Batch;
use super::context::ConsumerCx;
use super::feed::Feed;
use super::state::{Lent, owned};
use super::transactions::{Done, Fault, Transactions};
use super::worker::{Ended, Worker};
use crate::SYSTEM;
use crate::error::error;
use crate::metrics::TransactionEnd as End;

/// How soon after a transaction there may be another: messages share them.
pub(super) const TRANSACT_EVERY: Duration = Duration::from_millis(50);
/// How long the broker may take for a transaction before the consumer looks after its other business.
const TRANSACT: Duration = Duration::from_secs(2);
/// How soon a transaction that was aborted is tried again.
const STUCK_PAUSE: Duration = Duration::from_millis(250);
/// How long a rebalance may wait for a transaction.
const REVOKE: Duration = Duration::from_secs(5);
/// The pause between two transactions when what is done has to be committed now.
const AGAIN: Duration = Duration::from_millis(20);

/// What came of an attempt at a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    NothingLeft,
    Committed,
    /// To be tried again after a pause.
    Stuck,
}

impl Worker<'_> {
    /// Commits what is done, if it is time to, in a transaction.
    pub(super) fn transact(&mut self) -> Result<(), Ended> {
        let context = self.consumer.context();
        if let Some(fault) = context.take_fault() {
            return Err(fault.into());
        }
        if Instant::now() >= self.next_commit {
            let pause = match context.transact(&self.consumer, Instant::now() + TRANSACT)? {
                Progress::Stuck => STUCK_PAUSE,
                Progress::Committed | Progress::NothingLeft => TRANSACT_EVERY,
            };
            self.next_commit = Instant::now() + pause;
        }
        Ok(())
    }
}

impl ConsumerCx {
    /// Commits what is done in a transaction, or ends the one that is pending.
    fn transact(&self, consumer: &BaseConsumer<Self>, deadline: Instant) -> Result<Progress, Fault> {
        let mut transactions = self.feed.transactions();
        let Some(transactions) = transactions.as_mut() else { return Ok(Progress::NothingLeft) };
        let done = if transactions.is_pending() {
            transactions.finish(deadline)
        } else {
            let batch = self.feed.batch();
            if batch.0.is_empty() {
                return Ok(Progress::NothingLeft);
            }
            transactions.run(batch, consumer, deadline)
        };
        let count = |end, messages| self.consumed.transaction(end, transactions.took(), messages);
        match done {
            Ok(Done::Committed(batch)) => {
                count(End::Committed, batch.messages());
                self.feed.batch_committed(&batch);
                return Ok(Progress::Committed);
            }
            Ok(Done::Aborted(why)) => {
                count(End::Aborted, 0);
                warn!(topic = self.topic, why, "a transaction was aborted; it will be tried again");
            }
            Ok(Done::NotYet) => debug!(topic = self.topic, "the broker has not ended a transaction yet"),
            Err(fault) => {
                count(End::Unclear, 0);
                return Err(fault);
            }
        }
        Ok(Progress::Stuck)
    }

    /// Commits all that is done, in transactions, until `deadline`; true when nothing is left.
    pub(super) fn transact_all(&self, consumer: &BaseConsumer<Self>, deadline: Instant) -> Result<bool, Fault> {
        loop {
            match self.transact(consumer, deadline)? {
                Progress::NothingLeft => return Ok(true),
                _ if Instant::now() >= deadline || consumer.assignment_lost() => return Ok(false),
                Progress::Committed => {}
                Progress::Stuck => thread::sleep(AGAIN),
            }
        }
    }

    /// What went wrong with transactions while the client was calling back.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Commits what is done before partitions are given up; true when nothing was left.
    pub(super) fn transact_revoked(&self, consumer: &BaseConsumer<Self>) -> bool {
        let deadline = self.feed.stopping().unwrap_or_else(|| Instant::now() + REVOKE);
        self.transact_all(consumer, deadline.max(Instant::now() + AGAIN)).unwrap_or_else(|fault| {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            false
        })
    }
}

impl Feed {
    /// From now on, positions are committed in transactions only.
    pub(super) fn begin_transactions(&self, transactions: Transactions) {
        *self.transactions() = Some(transactions);
        self.is_transactional.store(true, Relaxed);
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.is_transactional.load(Relaxed)
    }

    /// Takes a message as done, and keeps what its handler left.
    pub(super) fn commit(&self, entry: Lent, outbox: Vec<Outgoing>) -> Confirmation {
        if !self.is_transactional() {
            drop(self.settle(entry, Outcome::Nack { after: None }));
            let what = "no transactions were begun; the message is delivered again";
            return Confirmation::failed(error(ErrorKind::Unsupported, "commit", what));
        }
        let mut state = self.lock();
        let state = &mut *state;
        let Some(partition) = owned(&mut state.partitions, &entry) else { return Confirmation::lost(SYSTEM) };
        let (bytes, confirmation) = partition.held.keep(entry.number, outbox);
        state.held_bytes += bytes;
        let goes_on = partition.finish(entry.number);
        self.back(partition);
        if goes_on {
            self.wake_worker();
        }
        confirmation
    }

    /// What can be committed now.
    pub(super) fn batch(&self) -> Batch {
        let mut state = self.lock();
        Batch(state.partitions.iter_mut().filter_map(|(number, partition)| partition.step(*number)).collect())
    }

    /// The batch was committed.
    pub(super) fn batch_committed(&self, batch: &Batch) {
        let mut state = self.lock();
        let state = &mut *state;
        for step in &batch.0 {
            let partition = state.partitions.get_mut(&step.commit.partition);
            if let Some(partition) = partition.filter(|partition| partition.generation == step.generation) {
                partition.committed = Some(step.commit.position);
                state.held_bytes -= partition.held.committed(step.before);
            }
        }
    }
}
