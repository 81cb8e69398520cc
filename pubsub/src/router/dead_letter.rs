//! Messages that are given up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mainspring_observe::correlation::{self, Correlation};
use mainspring_observe::panics;
use tracing::error;

use super::shared::Shared;
use crate::Message;
use crate::delivery::Position;
use crate::driver::{Endpoint, Limits};

/// The longest reason that is kept, in bytes: attributes have limits.
const MAX_REASON: usize = 1024;

const REASON: &str = "dead-letter-reason";

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

/// What the watcher is told, until the broker has taken the settlement.
pub(super) struct GivenUp {
    pub(super) message: Arc<Message>,
    pub(super) reason: String,
    pub(super) attempts: u32,
    pub(super) position: Option<Position>,
    pub(super) correlation: Correlation,
}

impl GivenUp {
    /// Tells the watcher, if there is one: the message is safe elsewhere.
    pub(super) fn tell(&self, shared: &Shared) {
        let Some(Watcher(watcher)) = &shared.watcher else { return };
        let Self { message, reason, attempts, position, correlation } = self;
        let letter = DeadLetter { message, reason, attempts: *attempts, position: *position, route: shared.route };
        correlation::with(correlation, || {
            if catch_unwind(AssertUnwindSafe(|| watcher(&letter))).is_err() {
                panics::count("message");
                error!(route = shared.route, "the function given to `on_dead_letter` panicked");
            }
        });
    }
}

impl DeadLetter<'_> {
    /// The message to publish: the original, and why it is here, as far as the limits leave room for that. What could be
    /// published once can so be published again, however large it is.
    pub(super) fn letter(&self, source: &Endpoint, limits: &Limits) -> Message {
        let mut letter = self.message.clone();
        add(&mut letter, limits, "dead-letter-attempts", self.attempts.to_string());
        if let Some(position) = self.position {
            add(&mut letter, limits, "dead-letter-position", position.to_string());
        }
        let reason = self.short_reason(&letter, limits).to_owned();
        add(&mut letter, limits, REASON, reason);
        add(&mut letter, limits, "dead-letter-route", self.route.to_owned());
        add(&mut letter, limits, "dead-letter-source", source.to_string());
        letter
    }

    /// As much of the reason as there is room for.
    fn short_reason(&self, letter: &Message, limits: &Limits) -> &str {
        let room = limits.message_bytes.map_or(MAX_REASON, |most| most.saturating_sub(letter.size() + REASON.len()));
        &self.reason[..self.reason.floor_char_boundary(room.min(MAX_REASON))]
    }
}

/// Sets an attribute if the message can still be published with it.
fn add(letter: &mut Message, limits: &Limits, name: &str, value: String) {
    let before = letter.attributes.insert(name.to_owned(), value);
    let is_over = |is: usize, limit: Option<usize>| limit.is_some_and(|most| is > most);
    if is_over(letter.size(), limits.message_bytes) || is_over(letter.attributes.len(), limits.attributes) {
        match before {
            Some(before) => letter.attributes.insert(name.to_owned(), before),
            None => letter.attributes.remove(name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(message: &Message, limits: &Limits) -> Message {
        let position = Some(Position::new(3, 42));
        let dead = DeadLetter { message, reason: "ありがとう, but no", attempts: 5, position, route: "ship" };
        dead.letter(&Endpoint::new("kafka", "orders"), limits)
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_and_the_original_never_is() {
        let original = Message::new("body").with_key("k").with_attribute("note", "☺");
        let all = letter(&original, &Limits::default());
        assert_eq!(all.attributes.len(), 6);
        assert_eq!(all.attributes[REASON], "ありがとう, but no");
        let mut most = 0;
        for room in 0..=all.size() - original.size() {
            let limits = Limits { message_bytes: Some(original.size() + room), ..Limits::default() };
            let letter = letter(&original, &limits);
            assert!(letter.size() <= original.size() + room);
            assert_eq!(
                (&letter.body, &letter.key, &letter.attributes["note"]),
                (&all.body, &all.key, &all.attributes["note"])
            );
            assert!(all.attributes[REASON].starts_with(letter.attributes.get(REASON).map_or("", String::as_str)));
            most = most.max(letter.attributes.len());
        }
        assert_eq!(most, 6);
    }

    #[test]
    fn attributes_are_counted_too_and_those_of_an_earlier_letter_make_room() {
        let original = Message::new("body").with_attribute("note", "☺");
        let limits = Limits { attributes: Some(3), ..Limits::default() };
        let first = letter(&original, &limits);
        assert_eq!(first.attributes.len(), 3);
        let again = letter(&first.with_attribute("dead-letter-attempts", "1"), &limits);
        assert_eq!((again.attributes.len(), again.attributes["dead-letter-attempts"].as_str()), (3, "5"));
    }
}
