//! An ack and an outbox in one step.

use std::time::Duration;

use tokio::time::Instant;

use super::SYSTEM;
use super::group::Ticket;
use super::lease::MemoryLease;
use super::parcel::Parcel;
use super::topic::Topic;
use crate::driver::Outgoing;
use crate::{Confirmation, Error, ErrorKind};

/// How long a message waits whose outbox finds no room.
const FULL_PAUSE: Duration = Duration::from_secs(1);

impl Topic {
    /// Acks a message and publishes what its handler left, or does neither. Others may see the messages of the outbox one
    /// after the other, but none of them unless all will come.
    pub(super) fn commit(
        &self,
        group: usize,
        ticket: Ticket,
        outbox: Vec<Outgoing>,
        lease: Box<MemoryLease>,
    ) -> Confirmation {
        let mut state = self.lock();
        let Some(entry) = state.groups[group].take_back(ticket) else { return Confirmation::lost(SYSTEM) };
        // The lock of this topic is not held while that of another is taken.
        drop(state);
        let published = self.publish_all(outbox);
        self.put_back(group, Some(lease), |group| match &published {
            Ok(()) => group.settle(&entry),
            Err(_) => group.delay(entry, Instant::now() + FULL_PAUSE),
        });
        published.map_or_else(Confirmation::failed, |()| Confirmation::settled())
    }

    /// Publishes all of an outbox, or nothing. There has to be room before; together they may go over it.
    fn publish_all(&self, outbox: Vec<Outgoing>) -> Result<(), Error> {
        let failed = |what: String| Error::new(ErrorKind::Throttled, "commit", what).with_backend(SYSTEM);
        let Some(broker) = self.broker().filter(|_| !outbox.is_empty()) else {
            let dropped = || failed("the broker was dropped; nothing was published".to_owned());
            return if outbox.is_empty() { Ok(()) } else { Err(dropped()) };
        };
        let mut sending = Vec::with_capacity(outbox.len());
        for Outgoing { destination, message } in outbox {
            let topic = broker.topic(&destination.destination);
            let parcel = Parcel::new(message);
            self.expect_no_fault()?;
            if !topic.has_room(parcel.size) {
                let what = format!("the topic `{}` is full: {}; nothing was published", topic.name(), topic.fullest());
                return Err(failed(what));
            }
            sending.push((topic, parcel));
        }
        for (topic, parcel) in sending {
            topic.add(&parcel);
        }
        Ok(())
    }
}
