//! The memory broker, and someone who looks on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Lease, Outcome, Outgoing, Progress, Receipt, Url};
use mainspring_pubsub::{Confirmation, Delivery, Error, ErrorKind, Message, MessageId, Publisher, Subscriber, memory};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::harness::Tally;
use crate::passed_on::passed_on;

/// Opens publishers and subscribers of a memory broker that are looked on.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    broker: memory::Broker,
    observer: Arc<Observer>,
}

/// Knows what every group of every topic still has to settle.
pub(crate) struct Observer {
    config: memory::Config,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Topic>,
    tally: Tally,
}

#[derive(Default)]
struct Topic {
    published: Vec<Message>,
    /// What each group has not settled.
    groups: BTreeMap<String, BTreeSet<MessageId>>,
}

impl Observed {
    pub(crate) fn new(broker: memory::Broker, observer: Arc<Observer>) -> Self {
        Self { broker, observer }
    }

    pub(crate) fn observer(&self) -> &Observer {
        &self.observer
    }

    pub(crate) fn open_publisher(&self, topic: &str) -> Publisher {
        Publisher::new(self.publisher_driver(topic))
    }

    pub(crate) fn open_subscriber(&self, topic: &str, group: &str) -> Subscriber {
        Subscriber::new(self.subscriber_driver(topic, group))
    }

    fn publisher_driver(&self, topic: &str) -> ObservedPublisher {
        let inner = self.broker.publisher(topic);
        ObservedPublisher { inner, topic: topic.to_owned(), observer: Arc::clone(&self.observer) }
    }

    fn subscriber_driver(&self, topic: &str, group: &str) -> ObservedSubscriber {
        let inner = self.broker.subscriber(topic, group);
        self.observer.join(topic, group);
        let source = Arc::new(Source { topic: topic.to_owned(), group: group.to_owned() });
        ObservedSubscriber { inner, source, observer: Arc::clone(&self.observer) }
    }
}

#[async_trait::async_trait]
impl driver::Opener for Observed {
    fn check(&self, url: &Url) -> Result<(), Error> {
        driver::Opener::check(&self.broker, url)
    }

    fn check_subscriber(&self, url: &Url) -> Result<(), Error> {
        driver::Opener::check_subscriber(&self.broker, url)
    }

    async fn publisher(&self, url: &Url) -> Result<Box<dyn driver::Publisher>, Error> {
        self.check(url)?;
        Ok(Box::new(self.publisher_driver(url.name())))
    }

    async fn subscriber(&self, url: &Url) -> Result<Box<dyn driver::Subscriber>, Error> {
        self.check(url)?;
        Ok(Box::new(self.subscriber_driver(url.name(), url.option("group").unwrap_or("default"))))
    }
}

impl Observer {
    pub(crate) fn new(config: memory::Config) -> Self {
        Self { config, state: Mutex::default(), changed: Notify::new() }
    }

    /// What is published to or received from, and which broker it belongs to.
    fn endpoint(&self, topic: &str) -> Endpoint {
        Endpoint::new("memory", topic).with_cluster(format!("{self:p}"))
    }

    pub(crate) fn published(&self, topic: &str) -> Vec<Message> {
        self.state().topics.get(topic).map(|topic| topic.published.clone()).unwrap_or_default()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.state().tally
    }

    pub(crate) async fn all_settled(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.state().topics.values().all(|topic| topic.groups.values().all(BTreeSet::is_empty)) {
                return;
            }
            changed.await;
        }
    }

    /// What is not settled, in words.
    pub(crate) fn left(&self) -> String {
        let mut left = Vec::new();
        for (name, topic) in &self.state().topics {
            for (group, messages) in &topic.groups {
                if messages.is_empty() {
                    continue;
                }
                let some: Vec<_> = messages.iter().take(3).map(ToString::to_string).collect();
                let dots = if messages.len() > some.len() { ", …" } else { "" };
                left.push(format!("`{group}` of `{name}` has {} left ({}{dots})", messages.len(), some.join(", ")));
            }
        }
        left.join("; ")
    }

    /// Notes what a new group starts with.
    fn join(&self, topic: &str, group: &str) {
        let mut state = self.state();
        let topic = state.topics.entry(topic.to_owned()).or_default();
        if topic.groups.contains_key(group) {
            return;
        }
        // The broker keeps its newest messages for late groups, within these bounds.
        let (mut bytes, max_bytes) = (0, self.config.max_bytes.as_usize());
        let kept = topic.published.iter().rev().take(self.config.retention).take_while(|message| {
            bytes += message.size();
            bytes <= max_bytes
        });
        let unsettled = kept.map(|message| message.id.clone()).collect();
        topic.groups.insert(group.to_owned(), unsettled);
    }

    /// Notes a message before the broker has it, so that it is never delivered before it is known.
    fn publish(&self, topic: &str, message: &Message) {
        let mut state = self.state();
        let topic = state.topics.entry(topic.to_owned()).or_default();
        topic.published.push(message.clone());
        for group in topic.groups.values_mut() {
            group.insert(message.id.clone());
        }
    }

    /// Takes back a message that the broker did not take.
    fn unpublish(&self, topic: &str, id: &MessageId) {
        let mut state = self.state();
        let Some(topic) = state.topics.get_mut(topic) else { return };
        if let Some(at) = topic.published.iter().rposition(|message| message.id == *id) {
            topic.published.remove(at);
        }
        for group in topic.groups.values_mut() {
            group.remove(id);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn settled(&self, source: &Source, id: &MessageId, outcome: &Outcome, result: &Result<(), Error>) {
        let mut state = self.state();
        let State { topics, tally } = &mut *state;
        match (outcome, result) {
            (_, Err(error)) if error.kind() == ErrorKind::Lost => tally.lost += 1,
            (_, Err(_)) => tally.returned += 1,
            (Outcome::Ack, Ok(())) => tally.acked += 1,
            (Outcome::Reject { .. }, Ok(())) => tally.rejected += 1,
            (Outcome::Nack { .. }, Ok(())) => tally.nacked += 1,
            (_, Ok(())) => tally.returned += 1,
        }
        let done = result.is_ok() && matches!(outcome, Outcome::Ack | Outcome::Reject { .. });
        let topic = topics.get_mut(&source.topic).filter(|_| done);
        if let Some(group) = topic.and_then(|topic| topic.groups.get_mut(&source.group)) {
            group.remove(id);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observer({:?})", self.tally())
    }
}

#[derive(Debug)]
struct Source {
    topic: String,
    group: String,
}

#[derive(Debug)]
struct ObservedPublisher {
    inner: Publisher,
    topic: String,
    observer: Arc<Observer>,
}

#[derive(Debug)]
struct ObservedSubscriber {
    inner: Subscriber,
    source: Arc<Source>,
    observer: Arc<Observer>,
}

#[derive(Debug)]
struct ObservedLease {
    inner: Delivery,
    source: Arc<Source>,
    observer: Arc<Observer>,
}

/// Takes a message back unless its publish succeeded, also when its future is dropped.
struct Pending<'a> {
    publisher: &'a ObservedPublisher,
    id: Option<MessageId>,
}

#[async_trait::async_trait]
impl driver::Publisher for ObservedPublisher {
    async fn publish(&self, message: Message, _deadline: Instant) -> Result<Receipt, Error> {
        self.observer.publish(&self.topic, &message);
        let mut pending = Pending { publisher: self, id: Some(message.id.clone()) };
        let receipt = self.inner.publish(message).await?;
        pending.id = None;
        Ok(receipt)
    }

    async fn flush(&self, deadline: Instant) -> Result<(), Error> {
        self.inner.flush(deadline).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().clone()
    }

    fn endpoint(&self) -> Endpoint {
        self.observer.endpoint(&self.topic)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.publisher.observer.unpublish(&self.publisher.topic, id);
        }
    }
}

#[async_trait::async_trait]
impl driver::Subscriber for ObservedSubscriber {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        let next = ready!(pin!(self.inner.next()).poll(cx))?;
        let Some(inner) = next else { return Poll::Ready(Ok(None)) };
        let (source, observer) = (Arc::clone(&self.source), Arc::clone(&self.observer));
        Poll::Ready(Ok(Some(passed_on(inner, |inner| ObservedLease { inner, source, observer }))))
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
        self.observer.endpoint(&self.source.topic).with_group(&*self.source.group)
    }
}

impl Lease for ObservedLease {
    fn settle(self: Box<Self>, outcome: Outcome) -> Confirmation {
        let Self { inner, source, observer } = *self;
        let message = inner.shared();
        let dead = format!("{}.dead", source.topic);
        let letter = match &outcome {
            // The broker publishes the letter itself, while it settles.
            Outcome::Reject { reason, letter } => {
                let bare = || (*message).clone().with_attribute("dead-letter-reason", reason.as_str());
                let letter = letter.as_deref().cloned().unwrap_or_else(bare);
                observer.publish(&dead, &letter);
                Some(letter)
            }
            _ => None,
        };
        // The memory broker answers at once.
        let result = inner.settle(outcome.clone()).now_or_never().unwrap_or(Ok(()));
        if let (Some(letter), Err(_)) = (letter, &result) {
            observer.unpublish(&dead, &letter.id);
        }
        observer.settled(&source, &message.id, &outcome, &result);
        result.map_or_else(Confirmation::failed, |()| Confirmation::settled())
    }

    fn commit(self: Box<Self>, outbox: Vec<Outgoing>) -> Confirmation {
        let Self { inner, source, observer } = *self;
        let message = inner.shared();
        let sent: Vec<_> =
            outbox.iter().map(|out| (out.destination.destination.clone(), out.message.clone())).collect();
        for (topic, message) in &sent {
            observer.publish(topic, message);
        }
        // The memory broker answers at once.
        let result = inner.commit(outbox).now_or_never().unwrap_or(Ok(()));
        if result.is_err() {
            sent.iter().for_each(|(topic, message)| observer.unpublish(topic, &message.id));
        }
        observer.settled(&source, &message.id, &Outcome::Ack, &result);
        result.map_or_else(Confirmation::failed, |()| Confirmation::settled())
    }

    fn extend(&self, by: Duration) -> Confirmation {
        self.inner.extend(by)
    }

    fn expires(&self) -> Option<Instant> {
        self.inner.lease()
    }
}
