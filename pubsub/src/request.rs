//! What a handler is called with.

use std::sync::Arc;

use crate::batch::Hold;
use crate::delivery::Position;
use crate::{Message, Outbox};

/// A message to handle, and what the router knows about it: what tower services and layers see, and what extractors
/// take their parts from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Request {
    message: Arc<Message>,
    attempt: u32,
    position: Option<Position>,
    route: &'static str,
    /// For a message that waits for a batch.
    hold: Option<Arc<Hold>>,
    outbox: Option<Outbox>,
}

impl Request {
    /// A request as a test would make it: the first attempt, of a route called `test`.
    pub fn new(message: impl Into<Arc<Message>>) -> Self {
        Self { message: message.into(), attempt: 1, position: None, route: "test", hold: None, outbox: None }
    }

    /// Sets which attempt it is.
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    pub(crate) fn with_position(mut self, position: Option<Position>) -> Self {
        self.position = position;
        self
    }

    pub(crate) fn with_route(mut self, route: &'static str) -> Self {
        self.route = route;
        self
    }

    pub(crate) fn with_hold(mut self, hold: Option<Arc<Hold>>) -> Self {
        self.hold = hold;
        self
    }

    pub(crate) fn hold(&self) -> Option<Arc<Hold>> {
        self.hold.clone()
    }

    pub(crate) fn with_outbox(mut self, outbox: Option<Outbox>) -> Self {
        self.outbox = outbox;
        self
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The message, shared.
    pub fn shared(&self) -> Arc<Message> {
        Arc::clone(&self.message)
    }

    /// Which attempt at the message this is; 1 is the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Where the message stands in its source, if the broker says.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// What is published with the message's ack, when the router is [`exactly_once`](crate::Router::exactly_once).
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_ref()
    }

    /// The name of the route.
    pub fn route(&self) -> &'static str {
        self.route
    }
}
