//! A subscriber whose deliveries are written down.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Lease, Outcome, Outgoing, Progress};
use mainspring_pubsub::{Confirmation, Delivery, Error, Message, Subscriber};
use tokio::time::Instant;

use crate::passed_on::passed_on;

use super::event::{Settlement, Tag, What};
use super::journal::Journal;

/// Passes everything on, and notes it.
pub(super) struct Watched {
    inner: Subscriber,
    journal: Journal,
    /// Which messages the journal is about; the others are passed on unseen.
    about: Box<dyn Fn(&Message) -> bool + Send>,
    group: Arc<str>,
    consumer: Arc<str>,
}

#[derive(Debug)]
struct WatchedLease {
    inner: Delivery,
    journal: Journal,
    tag: Option<Tag>,
    delivery: u64,
}

impl Watched {
    pub(super) fn new(
        inner: Subscriber,
        journal: Journal,
        (group, consumer): (&str, &str),
        about: impl Fn(&Message) -> bool + Send + 'static,
    ) -> Self {
        Self { inner, journal, about: Box::new(about), group: group.into(), consumer: consumer.into() }
    }
}

#[async_trait::async_trait]
impl driver::Subscriber for Watched {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        // `next` is cancel-safe, so that it can be made anew for each poll.
        let next = ready!(pin!(self.inner.next()).poll(cx))?;
        let Some(inner) = next else { return Poll::Ready(Ok(None)) };
        if !(self.about)(inner.message()) {
            return Poll::Ready(Ok(Some(inner)));
        }
        let (journal, message) = (self.journal.clone(), inner.message());
        let number = journal.delivered(&self.group, &self.consumer, message, inner.attempt(), inner.position());
        let tag = Tag::of(message);
        let lend = |inner| WatchedLease { inner, journal, tag, delivery: number };
        Poll::Ready(Ok(Some(passed_on(inner, lend))))
    }

    async fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        self.inner.close(deadline).await
    }

    async fn begin_transactions(&mut self, deadline: Instant) -> Result<(), Error> {
        self.inner.begin_transactions(deadline).await
    }

    fn unready(&self) -> Option<String> {
        self.inner.unready()
    }

    fn progress(&self) -> Option<Arc<dyn Progress>> {
        self.inner.progress()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("watched", &*self.consumer).with_group(&*self.group)
    }
}

impl Lease for WatchedLease {
    fn settle(self: Box<Self>, outcome: Outcome) -> Confirmation {
        let noted = Settlement::from(&outcome);
        self.pass_on(noted, |inner| inner.settle(outcome))
    }

    fn commit(self: Box<Self>, outbox: Vec<Outgoing>) -> Confirmation {
        self.pass_on(Settlement::from(&Outcome::Ack), |inner| inner.commit(outbox))
    }

    fn extend(&self, by: Duration) -> Confirmation {
        self.inner.extend(by)
    }

    fn expires(&self) -> Option<Instant> {
        self.inner.lease()
    }
}

impl WatchedLease {
    fn pass_on(self, noted: Settlement, settle: impl FnOnce(Delivery) -> Confirmation) -> Confirmation {
        let Self { inner, journal, tag, delivery } = self;
        journal.settled(tag.clone(), delivery, noted);
        let mut confirmation = settle(inner);
        match (&mut confirmation).now_or_never() {
            None => journal.forward(tag, delivery, confirmation),
            Some(result) => {
                journal.note(tag, What::Confirmed { delivery, taken: result.is_ok() });
                result.map_or_else(Confirmation::failed, |()| Confirmation::settled())
            }
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("inner", &self.inner).field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
