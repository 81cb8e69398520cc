//! What is committed together: positions, and what the handlers of the messages below them have left.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainspring_pubsub::driver::{Confirmation, Confirmer, Outgoing};

use super::partition::Commit;

/// What the handler of one message has left, until it is committed.
#[derive(Debug)]
struct Left {
    outbox: Arc<Vec<Outgoing>>,
    bytes: usize,
    confirmer: Confirmer,
}

/// What the handlers of a partition's messages have left, by the messages' numbers.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<u64, Left>);

/// A transaction's content.
#[derive(Debug, Default)]
pub(super) struct Batch(pub(super) Vec<Step>);

/// How far a partition gets with a transaction.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) commit: Commit,
    pub(super) generation: u64,
    /// Messages with lower numbers are done with it.
    pub(super) before: u64,
    /// In the order of the messages whose handlers left them.
    pub(super) outboxes: Vec<Arc<Vec<Outgoing>>>,
}

impl Batch {
    /// How many messages are published with it.
    pub(super) fn messages(&self) -> usize {
        self.0.iter().flat_map(|step| &step.outboxes).map(|outbox| outbox.len()).sum()
    }
}

impl Held {
    /// Keeps what was left with message `number`; answers its bytes, and what tells when it is committed.
    pub(super) fn keep(&mut self, number: u64, outbox: Vec<Outgoing>) -> (usize, Confirmation) {
        let bytes = outbox.iter().map(|outgoing| outgoing.message.size()).sum();
        let (confirmer, confirmation) = Confirmation::channel();
        self.0.insert(number, Left { outbox: Arc::new(outbox), bytes, confirmer });
        (bytes, confirmation)
    }

    /// What was left with messages up to `before`, in their order.
    pub(super) fn before(&self, before: u64) -> Vec<Arc<Vec<Outgoing>>> {
        self.0.range(..before).map(|(_, left)| Arc::clone(&left.outbox)).collect()
    }

    /// Forgets what is committed; answers its bytes.
    pub(super) fn committed(&mut self, before: u64) -> usize {
        let rest = self.0.split_off(&before);
        let committed = std::mem::replace(&mut self.0, rest);
        let confirm = |left: Left| {
            left.confirmer.confirm(Ok(()));
            left.bytes
        };
        committed.into_values().map(confirm).sum()
    }

    /// Forgets everything, which will be done again elsewhere; answers its bytes.
    pub(super) fn lose(&mut self) -> usize {
        let lose = |left: Left| {
            left.confirmer.confirm(Err(crate::error::lost()));
            left.bytes
        };
        std::mem::take(&mut self.0).into_values().map(lose).sum()
    }
}
