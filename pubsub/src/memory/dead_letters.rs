//! Messages that were rejected.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::SYSTEM;
use super::group::Ticket;
use super::parcel::Parcel;
use super::topic::Topic;
use crate::{Confirmation, Error, ErrorKind, Message};

/// How long a rejected message waits when there is no room for it among the dead letters.
const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);
const REASON: &str = "dead-letter-reason";

impl Topic {
    /// Moves a message to the dead letters.
    pub(super) fn reject(
        &self,
        group: usize,
        ticket: Ticket,
        reason: String,
        letter: Option<Box<Message>>,
    ) -> Confirmation {
        let mut state = self.lock();
        let Some(entry) = state.groups[group].take_back(ticket) else { return Confirmation::lost(SYSTEM) };
        // The lock of this topic is not held while that of another is taken.
        drop(state);
        let letter = match letter {
            Some(letter) => *letter,
            None => (*entry.parcel.message).clone().with_attribute(REASON, reason),
        };
        let buried = self.bury(letter);
        self.put_back(group, None, |group| match &buried {
            Ok(()) => group.settle(&entry),
            Err(_) => group.delay(entry, Instant::now() + DEAD_LETTER_PAUSE),
        });
        buried.map_or_else(Confirmation::failed, |()| Confirmation::settled())
    }

    fn bury(&self, letter: Message) -> Result<(), Error> {
        let Some(broker) = self.broker() else {
            let (topic, reason) = (self.name(), letter.attributes.get(REASON));
            warn!(topic, message_id = %letter.id, reason, "message rejected after its broker was dropped");
            return Ok(());
        };
        let dead = broker.topic(&format!("{}.dead", self.name()));
        match dead.try_add(&Parcel::new(letter), 1) {
            Some(_) => Ok(()),
            None => {
                let what = format!("no room for a dead letter: {}; the message is delivered again", dead.fullest());
                Err(Error::new(ErrorKind::Throttled, "reject", what).with_backend(SYSTEM))
            }
        }
    }
}
