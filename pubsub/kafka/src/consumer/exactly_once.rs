//! The feed's part in transactions: what handlers leave is kept until everything before it in its partition is done,
//! and then committed together with the position.
//!
//! So a transaction never waits for a handler, a handler that fails aborts none, and outputs come in the order of the
//! messages that they come from.

use std::sync::atomic::Ordering::Relaxed;

use mainspring_pubsub::ErrorKind;
use mainspring_pubsub::driver::{Confirmation, Outcome, Outgoing};

use super::batch::Batch;
use super::feed::Feed;
use super::state::{Entry, owned};
use super::transactions::Transactions;
use crate::SYSTEM;
use crate::error::error;

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
    pub(super) fn commit(&self, entry: Entry, outbox: Vec<Outgoing>) -> Confirmation {
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
        partition.finish(entry.number);
        self.back(partition);
        if std::mem::take(&mut state.hungry) {
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
