//! The loan of one message to one delivery.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::SYSTEM;
use super::group::Ticket;
use super::topic::Topic;
use crate::Confirmation;
use crate::driver::{Lease, Outcome, Outgoing};

/// A lease. Settled ones are kept by their group and used again, so that a delivery costs no allocation.
pub(super) struct MemoryLease {
    /// `None` in a spare one, which must not keep its topic alive.
    out: Option<Out>,
}

struct Out {
    topic: Arc<Topic>,
    group: usize,
    ticket: Ticket,
}

impl MemoryLease {
    pub(super) fn reuse(spare: Option<Box<Self>>, topic: Arc<Topic>, group: usize, ticket: Ticket) -> Box<Self> {
        let out = Some(Out { topic, group, ticket });
        match spare {
            Some(mut spare) => {
                spare.out = out;
                spare
            }
            None => Box::new(Self { out }),
        }
    }
}

impl Lease for MemoryLease {
    fn settle(mut self: Box<Self>, outcome: Outcome) -> Confirmation {
        match self.out.take() {
            Some(Out { topic, group, ticket }) => topic.settle(group, ticket, outcome, self),
            None => Confirmation::lost(SYSTEM),
        }
    }

    fn commit(mut self: Box<Self>, outbox: Vec<Outgoing>) -> Confirmation {
        match self.out.take() {
            Some(Out { topic, group, ticket }) => topic.commit(group, ticket, outbox, self),
            None => Confirmation::lost(SYSTEM),
        }
    }

    fn extend(&self, by: Duration) -> Confirmation {
        match &self.out {
            Some(out) => out.topic.extend(out.group, out.ticket, by),
            None => Confirmation::lost(SYSTEM),
        }
    }

    fn expires(&self) -> Option<Instant> {
        self.out.as_ref().and_then(|out| out.topic.expires(out.group, out.ticket))
    }
}

impl fmt::Debug for MemoryLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLease").field("ticket", &self.out.as_ref().map(|out| out.ticket)).finish()
    }
}
