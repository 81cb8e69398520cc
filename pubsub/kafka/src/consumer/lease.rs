//! The loan of one message to one delivery.

use std::sync::Arc;
use std::time::Duration;

use mainspring_pubsub::driver::{Confirmation, Lease, Outcome, Outgoing};
use tokio::time::Instant;

use super::feed::Feed;
use super::state::Lent;
use crate::SYSTEM;

/// A message stays on loan for as long as its partition stays: there is no other end to it.
#[derive(Debug)]
pub(super) struct KafkaLease {
    feed: Arc<Feed>,
    entry: Lent,
}

impl KafkaLease {
    pub(super) fn new(feed: Arc<Feed>, entry: Lent) -> Self {
        Self { feed, entry }
    }
}

impl Lease for KafkaLease {
    fn settle(self: Box<Self>, outcome: Outcome) -> Confirmation {
        self.feed.settle(self.entry, outcome)
    }

    fn commit(self: Box<Self>, outbox: Vec<Outgoing>) -> Confirmation {
        self.feed.commit(self.entry, outbox)
    }

    fn extend(&self, _by: Duration) -> Confirmation {
        if self.feed.holds(&self.entry) { Confirmation::settled() } else { Confirmation::lost(SYSTEM) }
    }

    fn expires(&self) -> Option<Instant> {
        None
    }
}
