//! Where events are written down.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainspring_pubsub::driver::Position;
use mainspring_pubsub::{Confirmation, Error, ErrorKind, Message, Publisher, Receipt, Subscriber};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::check::{Rules, check};
use super::event::{Event, PRODUCER, SEQ, Settlement, Tag, What, digest};
use super::finding::Verdict;
use super::watched::Watched;

/// A journal of what happened to messages. Cheap to clone; clones write into the same one.
///
/// It is held in memory and only grows: it is for tests, not for services.
#[derive(Clone, Default)]
pub struct Journal {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Default)]
struct Pages {
    events: Vec<Event>,
    deliveries: u64,
    /// The newest delivery of each message, for handlers that only see the message.
    newest: HashMap<Tag, u64>,
    /// Those who wait for the broker's answers to settlements.
    forwards: JoinSet<()>,
}

/// Publishes messages that the journal knows. Its messages are numbered in the order in which they are published, so
/// publish those of one key one after the other.
#[derive(Debug)]
pub struct Producer {
    journal: Journal,
    name: Arc<str>,
    next: AtomicU64,
}

/// A handler at work. Dropped without [`ended`](Self::ended), as by a panic or a timeout, it counts as failed.
#[derive(Debug)]
pub struct Handling {
    journal: Journal,
    tag: Option<Tag>,
    delivery: Option<u64>,
}

/// A publish on its way. Dropped without an answer it is unknown.
struct Publishing<'a> {
    journal: &'a Journal,
    tag: Tag,
    answered: bool,
}

impl Journal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// A producer. Its name must be its own.
    pub fn producer(&self, name: impl Into<String>) -> Producer {
        Producer { journal: self.clone(), name: name.into().into(), next: AtomicU64::new(0) }
    }

    /// Writes down what comes from a subscriber and how it is settled. `group` is the group that it receives for, and
    /// `consumer` its own name. The subscriber that comes back goes wherever the original would have gone.
    pub fn watch(&self, subscriber: Subscriber, group: &str, consumer: &str) -> Subscriber {
        self.watch_own(subscriber, group, consumer, |_message| true)
    }

    /// Like [`watch`](Self::watch), where others publish to the same topic: only messages that the journal is `about`
    /// are written down.
    pub fn watch_own(
        &self,
        subscriber: Subscriber,
        group: &str,
        consumer: &str,
        about: impl Fn(&Message) -> bool + Send + 'static,
    ) -> Subscriber {
        self.joined(group, consumer);
        subscriber.wrap(|inner| Watched::new(inner, self.clone(), (group, consumer), about))
    }

    /// A handler has begun with a message. Which delivery it has is found by the message's tag: it is the newest.
    pub fn handling(&self, message: &Message) -> Handling {
        let tag = Tag::of(message);
        let delivery = tag.as_ref().and_then(|tag| self.pages().newest.get(tag).copied());
        Handling { journal: self.clone(), tag, delivery }
    }

    /// Writes an event, for what the other methods do not see. Answers its place.
    pub fn note(&self, tag: Option<Tag>, what: What) -> usize {
        let mut pages = self.pages();
        pages.events.push(Event { tag, what });
        pages.events.len() - 1
    }

    /// Notes that `consumer` receives for `group`.
    pub fn joined(&self, group: &str, consumer: &str) {
        self.note(None, What::Joined { group: group.into(), consumer: consumer.into() });
    }

    /// Notes a delivery, and answers its number.
    pub fn delivered(
        &self,
        group: &Arc<str>,
        consumer: &Arc<str>,
        message: &Message,
        attempt: Option<u32>,
        position: Option<Position>,
    ) -> u64 {
        let tag = Tag::of(message);
        let mut pages = self.pages();
        let delivery = pages.deliveries;
        pages.deliveries += 1;
        if let Some(tag) = &tag {
            pages.newest.insert(tag.clone(), delivery);
        }
        let (group, consumer, digest) = (Arc::clone(group), Arc::clone(consumer), digest(message));
        pages
            .events
            .push(Event { tag, what: What::Delivered { delivery, group, consumer, attempt, position, digest } });
        delivery
    }

    /// Notes a delivery in another process, of which only the tag is known here, and answers its number.
    pub fn delivered_elsewhere(&self, group: &str, consumer: &Arc<str>, tag: Tag) -> u64 {
        let mut pages = self.pages();
        let delivery = pages.deliveries;
        pages.deliveries += 1;
        // Nobody has seen the message here: it counts as what was published.
        let published = pages.events.iter().find_map(|event| match &event.what {
            What::Publish { digest, .. } if event.tag.as_ref() == Some(&tag) => Some(*digest),
            _ => None,
        });
        let (group, consumer) = (group.into(), Arc::clone(consumer));
        let (attempt, position, digest) = (None, None, published.unwrap_or_default());
        let what = What::Delivered { delivery, group, consumer, attempt, position, digest };
        pages.events.push(Event { tag: Some(tag), what });
        delivery
    }

    /// Notes how a delivery was settled.
    pub fn settled(&self, tag: Option<Tag>, delivery: u64, settlement: Settlement) {
        self.note(tag, What::Settled { delivery, settlement });
    }

    /// Notes the broker's answer to a settlement when it comes, and passes it on.
    pub(super) fn forward(&self, tag: Option<Tag>, delivery: u64, confirmation: Confirmation) -> Confirmation {
        // A delivery may be dropped where no runtime is; then the answer is passed on unseen.
        if Handle::try_current().is_err() {
            return confirmation;
        }
        let (confirmer, passed_on) = Confirmation::channel();
        let journal = self.clone();
        let mut pages = self.pages();
        while pages.forwards.try_join_next().is_some() {}
        pages.forwards.spawn(async move {
            let result = confirmation.await;
            journal.note(tag, What::Confirmed { delivery, taken: result.is_ok() });
            confirmer.confirm(result);
        });
        passed_on
    }

    /// Notes that everything in `partition` before `next` is committed for `group`.
    pub fn committed(&self, group: &str, partition: u32, next: u64) {
        self.note(None, What::Committed { group: group.into(), partition, next });
    }

    /// A copy of everything written so far.
    pub fn events(&self) -> Vec<Event> {
        self.pages().events.clone()
    }

    /// Checks everything written so far.
    pub fn check(&self, rules: &Rules) -> Verdict {
        check(&self.events(), rules)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Only pushes happen under the lock, so a poisoned one is still whole.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Producer {
    /// Publishes a message under the next number.
    ///
    /// Errors that leave open whether the message was sent ([`Timeout`](ErrorKind::Timeout),
    /// [`Unavailable`](ErrorKind::Unavailable), [`Other`](ErrorKind::Other)) are noted as such, and so is dropping the
    /// future.
    pub async fn publish(&self, publisher: &Publisher, message: Message) -> Result<Receipt, Error> {
        let (tag, message) = self.begin(message);
        let mut publishing = Publishing { journal: &self.journal, tag, answered: false };
        let result = publisher.publish(message).await;
        publishing.answer(&result);
        result
    }

    /// Publishes messages under the next numbers, and answers for each.
    pub async fn publish_all(&self, publisher: &Publisher, messages: Vec<Message>) -> Vec<Result<Receipt, Error>> {
        let (publishing, messages): (Vec<_>, Vec<_>) = messages.into_iter().map(|message| self.begin(message)).unzip();
        let publishing = publishing.into_iter().map(|tag| Publishing { journal: &self.journal, tag, answered: false });
        let publishing: Vec<_> = publishing.collect();
        let results = publisher.publish_all(messages).await;
        for (mut publishing, result) in publishing.into_iter().zip(&results) {
            publishing.answer(result);
        }
        results
    }

    /// Tags a message and notes that its publish begins, for publishing by other means: note
    /// [`Published`](What::Published) and its like with the tag.
    pub fn begin(&self, message: Message) -> (Tag, Message) {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let tag = Tag { producer: Arc::clone(&self.name), seq };
        let message = message.with_attribute(PRODUCER, &*self.name).with_attribute(SEQ, seq.to_string());
        let what = What::Publish { key: message.key.clone(), digest: digest(&message) };
        self.journal.note(Some(tag.clone()), what);
        (tag, message)
    }

    /// How many messages were published, or tried.
    pub fn count(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

impl Handling {
    /// The handler came to its end.
    pub fn ended(mut self, ok: bool) {
        self.end(ok);
    }

    fn end(&mut self, ok: bool) {
        if let Some(delivery) = self.delivery.take() {
            self.journal.note(self.tag.take(), What::Ended { delivery, ok });
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Publishing<'_> {
    fn answer<T>(&mut self, result: &Result<T, Error>) {
        self.answered = true;
        let what = match result {
            Ok(_) => What::Published,
            Err(error) if is_certain(error) => What::Refused { why: error.to_string() },
            Err(_) => What::Unknown,
        };
        self.journal.note(Some(self.tag.clone()), what);
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.journal.note(Some(self.tag.clone()), What::Unknown);
        }
    }
}

/// Whether a publish that failed with this error has certainly not sent the message.
fn is_certain(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Lost | ErrorKind::Other)
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Journal({} events)", self.pages().events.len())
    }
}
