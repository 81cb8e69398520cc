//! What a case has to work with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainspring_pubsub::driver::Capabilities;
use mainspring_pubsub::{Brokers, Confirmation, Delivery, Message, MessageId, Publisher, Router, Subscriber};
use tokio::time::{Instant, timeout};

use super::backend::Backend;
use super::case::{Fault, ensure};
use super::run::Scale;
use crate::history::{Journal, Producer};
use crate::running::Running;

/// The attribute that tells the messages of one topic of one case from those of others in the same place.
const CASE: &str = "conformance-case";

/// A case's own piece of the broker.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) can: Capabilities,
    pub(super) case: &'static str,
    pub(super) scale: Scale,
}

/// A topic, by one connection.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    backend: Arc<dyn Backend>,
    brokers: Brokers,
    pub(super) url: String,
    /// Unique in the world, so that a run never sees what an earlier one left.
    tag: Arc<str>,
    pub(super) patience: Duration,
    pub(super) quiet: Duration,
}

/// A subscriber that waits as long as it may and no longer, and passes over messages of others.
#[derive(Debug)]
pub(super) struct Inbox {
    subscriber: Subscriber,
    tag: Arc<str>,
    patience: Duration,
    quiet: Duration,
}

impl Stage {
    /// How many of something: few as a rule, many when asked to be thorough.
    pub(super) fn size(&self, short: usize, full: usize) -> usize {
        match self.scale {
            Scale::Short => short,
            Scale::Full => full,
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.backend.patience()
    }

    /// A topic with a connection of its own.
    pub(super) async fn topic(&self) -> Result<Topic, Fault> {
        Topic::open(&self.backend, self.case).await
    }
}

impl Topic {
    pub(super) async fn open(backend: &Arc<dyn Backend>, case: &str) -> Result<Self, Fault> {
        static TOPICS: AtomicUsize = AtomicUsize::new(0);
        let url = backend.topic(case).await?;
        let tag = format!("{case}-{:08x}-{}", fastrand::u32(..), TOPICS.fetch_add(1, Ordering::Relaxed)).into();
        let (patience, quiet) = (backend.patience(), backend.quiet());
        Ok(Self { brokers: backend.connect().await?, backend: Arc::clone(backend), url, tag, patience, quiet })
    }

    /// The same topic by a new connection, as after a restart of the process.
    pub(super) async fn again(&self) -> Result<Self, Fault> {
        Ok(Self { brokers: self.backend.connect().await?, ..self.clone() })
    }

    pub(super) fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    /// A message that this topic's inboxes do not pass over.
    pub(super) fn message(&self, body: impl Into<Bytes>) -> Message {
        Message::new(body).with_attribute(CASE, &*self.tag)
    }

    pub(super) fn owns(&self, message: &Message) -> bool {
        message.attributes.get(CASE).map(String::as_str) == Some(&*self.tag)
    }

    /// The attributes of a message, without the suite's own.
    pub(super) fn attributes(message: &Message) -> BTreeMap<String, String> {
        let mut attributes = message.attributes.clone();
        attributes.remove(CASE);
        attributes.remove("traceparent");
        attributes
    }

    pub(super) async fn publisher(&self) -> Result<Publisher, Fault> {
        Ok(within(self.patience, "opening a publisher", self.brokers.publisher(&self.url)).await??)
    }

    /// The URL of a group. Its name is the case's own, too.
    pub(super) fn group(&self, group: &str) -> String {
        self.backend.group(&self.url, &format!("{}-{group}", self.tag))
    }

    pub(super) async fn subscriber(&self, group: &str) -> Result<Subscriber, Fault> {
        Ok(within(self.patience, "opening a subscriber", self.brokers.subscriber(&self.group(group))).await??)
    }

    /// A subscriber of the group `g` whose deliveries of this topic's messages are written down.
    pub(super) async fn watched(&self, journal: &Journal, consumer: &str) -> Result<Subscriber, Fault> {
        let topic = self.clone();
        Ok(journal.watch_own(self.subscriber("g").await?, "g", consumer, move |message| topic.owns(message)))
    }

    /// A producer of this topic, under a name that no other run has.
    pub(super) fn producer(&self, journal: &Journal) -> Producer {
        journal.producer(&*self.tag)
    }

    /// What this topic's producer is called.
    pub(super) fn name(&self) -> &str {
        &self.tag
    }

    pub(super) async fn inbox(&self, group: &str) -> Result<Inbox, Fault> {
        Ok(self.reads(self.subscriber(group).await?))
    }

    /// Reads from a subscriber that was opened elsewhere, or is watched.
    pub(super) fn reads(&self, subscriber: Subscriber) -> Inbox {
        Inbox { subscriber, tag: Arc::clone(&self.tag), patience: self.patience, quiet: self.quiet }
    }

    /// Publishes a message of this topic.
    pub(super) async fn send(&self, publisher: &Publisher, message: Message) -> Result<(), Fault> {
        Ok(within(self.patience, "publishing", publisher.publish(message)).await?.map(drop)?)
    }

    /// Publishes messages with these numbers as bodies, and answers them.
    pub(super) async fn send_numbers(&self, publisher: &Publisher, count: usize) -> Result<Vec<Message>, Fault> {
        let messages: Vec<_> = (0..count).map(|n| self.message(n.to_string())).collect();
        self.send_all(publisher, messages.clone()).await?;
        Ok(messages)
    }

    pub(super) async fn send_all(&self, publisher: &Publisher, messages: Vec<Message>) -> Result<(), Fault> {
        let results = within(self.patience, "publishing", publisher.publish_all(messages)).await?;
        for result in results {
            result?;
        }
        Ok(())
    }

    pub(super) fn start(&self, router: Router) -> Running {
        Running::start(router)
    }
}

impl Inbox {
    /// The next message of this topic, which has to come.
    pub(super) async fn next(&mut self) -> Result<Delivery, Fault> {
        let patience = self.patience;
        match timeout(patience, self.next_own()).await {
            Ok(next) => next?.ok_or_else(|| Fault::new("the subscriber is closed, and a message was still to come")),
            Err(_) => Err(Fault::new(format!("no message came in {patience:?}"))),
        }
    }

    /// The next message of this topic, if one comes before the backend's quiet time is over.
    pub(super) async fn maybe(&mut self) -> Result<Option<Delivery>, Fault> {
        match timeout(self.quiet, self.next_own()).await {
            Ok(next) => next,
            Err(_) => Ok(None),
        }
    }

    /// Nothing comes.
    pub(super) async fn is_quiet(&mut self, why: &str) -> Result<(), Fault> {
        match self.maybe().await? {
            None => Ok(()),
            Some(delivery) => {
                let (body, attempt) = (text(delivery.message()), delivery.attempt());
                Err(Fault::new(format!("`{body}` came (attempt {attempt:?}), and nothing should: {why}")))
            }
        }
    }

    /// This many messages, unsettled.
    pub(super) async fn hold(&mut self, count: usize) -> Result<Vec<Delivery>, Fault> {
        let mut held = Vec::with_capacity(count);
        while held.len() < count {
            let next = self.next().await;
            held.push(next.map_err(|Fault(why)| Fault::new(format!("{} of {count} came: {why}", held.len())))?);
        }
        Ok(held)
    }

    /// This many messages, acked.
    pub(super) async fn read(&mut self, count: usize) -> Result<Vec<Message>, Fault> {
        let mut read = Vec::with_capacity(count);
        while read.len() < count {
            let next = self.next().await;
            let delivery = next.map_err(|Fault(why)| Fault::new(format!("{} of {count} came: {why}", read.len())))?;
            read.push(delivery.message().clone());
            confirmed(self.patience, delivery.ack()).await?;
        }
        Ok(read)
    }

    /// Reads and acks until all of these have come, each once and nothing else, and then nothing more comes.
    pub(super) async fn read_exactly(&mut self, expected: &[Message]) -> Result<Vec<Message>, Fault> {
        let read = self.read(expected.len()).await?;
        same(expected, &read)?;
        self.is_quiet("every message has been acked").await?;
        Ok(read)
    }

    pub(super) async fn close(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + self.patience;
        Ok(within(self.patience * 2, "closing a subscriber", self.subscriber.close(deadline)).await??)
    }

    pub(super) fn subscriber(&mut self) -> &mut Subscriber {
        &mut self.subscriber
    }

    /// `None` once closed. Cancel-safe.
    async fn next_own(&mut self) -> Result<Option<Delivery>, Fault> {
        loop {
            match self.subscriber.next().await {
                Ok(Some(delivery)) => {
                    if delivery.message().attributes.get(CASE).map(String::as_str) == Some(&*self.tag) {
                        return Ok(Some(delivery));
                    }
                    drop(delivery.ack());
                }
                Ok(None) => return Ok(None),
                // The caller's own deadline bounds this.
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Waits for something that has to end.
pub(super) async fn within<F: Future>(limit: Duration, what: &str, future: F) -> Result<F::Output, Fault> {
    timeout(limit, future).await.map_err(|_| Fault::new(format!("{what} took longer than {limit:?}")))
}

/// Waits for a settlement to land.
pub(super) async fn confirmed(limit: Duration, confirmation: Confirmation) -> Result<(), Fault> {
    Ok(within(limit, "settling", confirmation).await??)
}

pub(super) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

/// The same messages by id, each once, with the same bodies and keys; the order does not matter.
pub(super) fn same(expected: &[Message], received: &[Message]) -> Result<(), Fault> {
    let mut missing: BTreeMap<&MessageId, &Message> = expected.iter().map(|message| (&message.id, message)).collect();
    let mut seen = BTreeSet::new();
    for message in received {
        let shown = text(message);
        ensure!(seen.insert(&message.id), "`{shown}` came twice");
        let Some(sent) = missing.remove(&message.id) else {
            return Err(Fault::new(format!("`{shown}` came, which was not sent (or under another id)")));
        };
        ensure!(sent.body == message.body, "the body `{}` came as `{shown}`", text(sent));
        ensure!(sent.key == message.key, "the key of `{shown}` was {:?} and came as {:?}", sent.key, message.key);
    }
    let lost: Vec<_> = missing.values().take(5).map(|message| text(message)).collect();
    ensure!(
        lost.is_empty(),
        "{} of {} messages are lost, for example {}",
        missing.len(),
        expected.len(),
        lost.join(", ")
    );
    Ok(())
}
