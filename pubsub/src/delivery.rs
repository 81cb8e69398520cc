//! A message that a broker has lent us.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Confirmation;
use crate::driver::{Lease, Outcome, Outgoing};
use crate::message::Message;

/// A message on loan from a broker, until it is settled.
///
/// Settling consumes the delivery and is sent at once; the [`Confirmation`] need not be awaited. A delivery that is
/// dropped unsettled (by a panic, a timeout, an abort, an early `?`) goes back to the broker as if
/// [`nack`](Self::nack)ed, so that nothing is lost and a message that always fails still uses up its attempts.
#[must_use = "a delivery that is dropped goes back to the broker"]
pub struct Delivery {
    message: Arc<Message>,
    attempt: Option<u32>,
    position: Option<Position>,
    lease: Option<Box<dyn Lease>>,
    /// Whether being dropped uses up no attempt.
    released_on_drop: bool,
}

/// Where in its source a message stands, for brokers that number their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Position {
    /// The partition or shard; 0 where there is only one.
    pub partition: u32,
    /// The number within the partition.
    pub offset: u64,
}

impl Delivery {
    /// A delivery as a driver makes it.
    pub fn new(message: impl Into<Arc<Message>>, lease: Box<dyn Lease>) -> Self {
        Self { message: message.into(), attempt: None, position: None, lease: Some(lease), released_on_drop: false }
    }

    /// Sets how many times the message has been delivered, this time included.
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// Sets where the message stands in its source.
    pub fn with_position(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The message, shared: what outlives the delivery without a copy.
    pub fn shared(&self) -> Arc<Message> {
        Arc::clone(&self.message)
    }

    /// How many times the message has been delivered, this time included; `None` where the broker does not count.
    pub fn attempt(&self) -> Option<u32> {
        self.attempt
    }

    /// Where the message stands in its source; `None` where the broker does not say.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// When the broker will take the message back; `None` where the loan has no end of its own.
    pub fn lease(&self) -> Option<Instant> {
        self.lease.as_ref().and_then(|lease| lease.expires())
    }

    /// Done: the message is not delivered again.
    pub fn ack(self) -> Confirmation {
        self.settle(Outcome::Ack)
    }

    /// Done, and with it goes an outbox: both in one step, or neither. What was published becomes visible with the ack.
    /// For subscribers that [began transactions](crate::Subscriber::begin_transactions).
    pub fn commit(mut self, outbox: Vec<Outgoing>) -> Confirmation {
        self.settle_in_place(|lease| lease.commit(outbox))
    }

    /// Failed: the message is delivered again.
    pub fn nack(self) -> Confirmation {
        self.settle(Outcome::Nack { after: None })
    }

    /// Failed: the message is delivered again, not before `delay` has passed.
    pub fn nack_after(self, delay: Duration) -> Confirmation {
        self.settle(Outcome::Nack { after: Some(delay) })
    }

    /// Hopeless: the message is not delivered again, and goes where the broker keeps dead letters, if it keeps any.
    pub fn reject(self, reason: impl Into<String>) -> Confirmation {
        self.settle(Outcome::Reject { reason: reason.into(), letter: None })
    }

    /// Not handled: the message is delivered again, to whoever is next, and this attempt does not count where the
    /// broker can help it.
    pub fn release(self) -> Confirmation {
        self.settle(Outcome::Return)
    }

    /// Settles it with an outcome that somebody else has decided: what a subscriber around another passes on.
    pub fn settle(mut self, outcome: Outcome) -> Confirmation {
        self.settle_in_place(|lease| lease.settle(outcome))
    }

    /// Asks for the loan to last until `by` from now.
    pub fn extend(&self, by: Duration) -> Confirmation {
        match &self.lease {
            Some(lease) => lease.extend(by),
            None => Confirmation::lost("pubsub"),
        }
    }

    /// From now on, dropping the delivery [`release`](Self::release)s it: the router answers for its handlers.
    pub(crate) fn release_on_drop(&mut self) {
        self.released_on_drop = true;
    }

    /// Settles without moving the delivery, which can be settled only once all the same.
    pub(crate) fn settle_in_place(&mut self, how: impl FnOnce(Box<dyn Lease>) -> Confirmation) -> Confirmation {
        self.lease.take().map_or_else(|| Confirmation::lost("pubsub"), how)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let outcome = if self.released_on_drop { Outcome::Return } else { Outcome::Nack { after: None } };
            drop(lease.settle(outcome));
        }
    }
}

impl Position {
    /// Message number `offset` of `partition`.
    pub fn new(partition: u32, offset: u64) -> Self {
        Self { partition, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("attempt", &self.attempt)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
