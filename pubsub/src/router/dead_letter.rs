//! Messages that are given up.

use std::sync::Arc;

use crate::Message;
use crate::delivery::Position;
use crate::driver::Endpoint;

/// The longest reason that is kept, in bytes: attributes have limits.
const MAX_REASON: usize = 1024;

/// A message that was given up, as [`Router::on_dead_letter`](crate::Router::on_dead_letter) sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadLetter<'a> {
    /// The message as it was received.
    pub message: &'a Message,
    /// Why it was given up: the last error.
    pub reason: &'a str,
    /// How often it was tried.
    pub attempts: u32,
    /// Where it stood in its source, if the broker says.
    pub position: Option<Position>,
    /// The route that gave it up.
    pub route: &'static str,
}

/// The user's own function for dead letters.
#[derive(Clone)]
pub(super) struct Watcher(pub(super) Arc<dyn Fn(&DeadLetter<'_>) + Send + Sync>);

impl DeadLetter<'_> {
    /// The message to publish: the original, and why it is here.
    pub(super) fn letter(&self, source: &Endpoint) -> Message {
        let reason = &self.reason[..self.reason.floor_char_boundary(MAX_REASON)];
        let letter = self.message.clone();
        let letter = letter.with_attribute("dead-letter-reason", reason);
        let letter = letter.with_attribute("dead-letter-attempts", self.attempts.to_string());
        let letter = letter.with_attribute("dead-letter-route", self.route);
        let letter = letter.with_attribute("dead-letter-source", format!("{}://{}", source.system, source.destination));
        match self.position {
            Some(position) => letter.with_attribute("dead-letter-position", position.to_string()),
            None => letter,
        }
    }
}
