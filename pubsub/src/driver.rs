//! What a broker implements. Applications never see these traits: they hold the concrete
//! [`Publisher`](crate::Publisher), [`Subscriber`](crate::Subscriber) and [`Delivery`], where windows, limits, metrics,
//! tracing and what happens on drop are written once.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

pub use crate::confirmation::{Confirmation, Confirmer};
pub use crate::delivery::{Delivery, Position};
pub use crate::publisher::Receipt;
pub use crate::url::Url;
use crate::{Error, ErrorKind, Message};

/// Opens publishers and subscribers for the URLs of one scheme.
///
/// # Contract
/// An option that is not known is a [`Config`](crate::ErrorKind::Config) error: see [`Url::expect_options`]. Options
/// that only concern subscribing are accepted, and ignored, when publishing, so that one URL serves both.
#[async_trait]
pub trait Opener: Debug + Send + Sync + 'static {
    /// Says what is wrong with a URL, as far as it can be told from the URL and the configuration alone: this is what
    /// `--check-config` asks.
    ///
    /// # Contract
    /// No I/O, and no state. Fails with [`Config`](crate::ErrorKind::Config), and never where opening would succeed:
    /// what only subscribing needs, such as a group, is for [`check_subscriber`](Self::check_subscriber) to ask for. A
    /// driver without this method leaves every fault to be found by opening.
    fn check(&self, _url: &Url) -> Result<(), Error> {
        Ok(())
    }

    /// The same for a URL that is to be subscribed to, which may need more than one that is published to: a group, say.
    fn check_subscriber(&self, url: &Url) -> Result<(), Error> {
        self.check(url)
    }

    /// Opens a publisher. Connecting may be left to the first publish.
    async fn publisher(&self, url: &Url) -> Result<Box<dyn Publisher>, Error>;

    /// Opens a subscriber. Messages published after this returns are seen by its group.
    async fn subscriber(&self, url: &Url) -> Result<Box<dyn Subscriber>, Error>;

    /// Opens the place where a router puts the dead letters of what it receives from `url`, when it was given none and
    /// the broker keeps none itself (see [`Capabilities::reject`]). `None`, the default, when there is no such place.
    async fn dead_letters(&self, _url: &Url) -> Result<Option<Box<dyn Publisher>>, Error> {
        Ok(None)
    }

    /// Makes the topic of a URL, empty, with the broker's own defaults. For tests and tools: services find theirs made.
    ///
    /// # Contract
    /// A driver that does not answers [`Unsupported`](crate::ErrorKind::Unsupported).
    async fn create_topic(&self, url: &Url) -> Result<(), Error> {
        Err(no_topics("create topic", url))
    }

    /// Removes the topic of a URL, with what is in it. The counterpart of [`create_topic`](Self::create_topic).
    async fn delete_topic(&self, url: &Url) -> Result<(), Error> {
        Err(no_topics("delete topic", url))
    }

    /// Removes the group of a URL, with how far it has come: for those who read in a group of their own, once.
    ///
    /// # Contract
    /// A group that is not there is no error; one that still has members is. A driver that does not answers
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    async fn delete_group(&self, url: &Url) -> Result<(), Error> {
        let what = format!("the driver of `{}` does not remove groups", url.scheme());
        Err(Error::new(ErrorKind::Unsupported, "delete group", what))
    }
}

/// Sends messages to one destination.
#[async_trait]
pub trait Publisher: Debug + Send + Sync + 'static {
    /// Publishes one message.
    ///
    /// # Contract
    /// `Ok` means that the broker has the message. It never retries on its own account beyond `deadline`; it need not watch
    /// the clock for an answer, because the caller drops the future then, unless it
    /// [keeps deadlines](Self::keeps_deadlines) itself. The error says whether retrying may help. When the future is dropped
    /// the message may or may not be published, and nothing else is disturbed. Limits in [`Capabilities`] have been checked.
    async fn publish(&self, message: Message, deadline: Instant) -> Result<Receipt, Error>;

    /// Publishes one message if that takes no waiting; leaves it to [`publish`](Self::publish) otherwise.
    ///
    /// # Contract
    /// As [`publish`](Self::publish). It does not block. For brokers that often have a message at once: it spares them a
    /// future. Without this method, all messages are left to `publish`.
    fn publish_at_once(&self, message: Message) -> AtOnce {
        AtOnce::Waits(message)
    }

    /// Whether [`publish`](Self::publish) always answers by its deadline, or a second or so later, when it is called as long
    /// before that as the configured timeout is. It then costs no timer besides.
    fn keeps_deadlines(&self) -> bool {
        false
    }

    /// Publishes several messages, in order, and answers for each: one result per message, in the same order. One that
    /// fails does not fail its neighbours. There are never more than [`Limits::batch`] of them.
    ///
    /// # Contract
    /// Unlike [`publish`](Self::publish) it watches the clock: at `deadline` it answers for those that are confirmed, and
    /// [`Timeout`](crate::ErrorKind::Timeout) for the others.
    async fn publish_all(&self, batch: Vec<Message>, deadline: Instant) -> Vec<Result<Receipt, Error>> {
        let mut results = Vec::with_capacity(batch.len());
        for message in batch {
            let result = if Instant::now() < deadline {
                let answer = timeout_at(deadline, self.publish(message, deadline)).await;
                answer.unwrap_or_else(|_| Err(Error::unconfirmed(self.endpoint().system)))
            } else {
                Err(Error::unsent(self.endpoint().system, "the time was over"))
            };
            results.push(result);
        }
        results
    }

    /// Says whether [`publish`](Self::publish) would refuse the message before any I/O, for reasons other than the limits in
    /// [`Capabilities`]: asked for messages that others publish in a transaction.
    fn check(&self, _message: &Message) -> Result<(), Error> {
        Ok(())
    }

    /// Waits, until `deadline`, for everything that was handed over before the call to be confirmed or given up. A
    /// deadline that has passed is no reason to do nothing: what is left is given up then.
    async fn flush(&self, deadline: Instant) -> Result<(), Error>;

    /// What the broker can do.
    fn capabilities(&self) -> Capabilities;

    /// What is published to: the labels of metrics.
    fn endpoint(&self) -> Endpoint;
}

/// What became of a message that was to be published without waiting.
#[derive(Debug)]
pub enum AtOnce {
    /// It was published, or cannot be.
    Answered(Result<Receipt, Error>),
    /// It has to wait, and nothing was done.
    Waits(Message),
}

/// Receives messages from one source.
#[async_trait]
pub trait Subscriber: Debug + Send + 'static {
    /// The next delivery, `None` once closed.
    ///
    /// # Contract
    /// A poll and not a future, so that it is cancel-safe by construction and costs no allocation: what has arrived is
    /// either handed out or still here. A retryable error means that polling again may help, after a pause that the
    /// caller chooses; any other error is final.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>>;

    /// Stops receiving, gives back what was fetched and not handed out, and sends settlements that are still on their
    /// way, all until `deadline`. Deliveries that are out stay valid where the broker allows it, else they are lost.
    async fn close(&mut self, deadline: Instant) -> Result<(), Error>;

    /// Has deliveries be committed in transactions from now on: see [`Lease::commit`]. Called once, before anything is
    /// received, by whoever wants each message's effects on this broker exactly once.
    ///
    /// It answers until `deadline`. A broker without transactions answers [`Unsupported`](crate::ErrorKind::Unsupported).
    async fn begin_transactions(&mut self, _deadline: Instant) -> Result<(), Error> {
        Err(no_transactions(self.endpoint().system))
    }

    /// Why it receives nothing yet although nothing has failed: a consumer that has not joined its group, say. `None`, the
    /// default, when it receives. A router is not ready before that, and shows the answer.
    ///
    /// # Contract
    /// It blocks no longer than a lock. It is asked after a [`poll_next`](Self::poll_next) that was pending, whose task is
    /// woken when the answer changes. It never stays for ever where nothing is wrong: who has to share with others and
    /// gets nothing does receive.
    fn unready(&self) -> Option<String> {
        None
    }

    /// How far it is, for the debug page, and for a router that has to work off a [volatile](Capabilities::volatile) queue;
    /// `None`, the default, where there is nothing to say. It is asked for once, and looked at from other threads, also
    /// when the subscriber is closed.
    fn progress(&self) -> Option<Arc<dyn Progress>> {
        None
    }

    /// What the broker can do.
    fn capabilities(&self) -> Capabilities;

    /// What is received from: the labels of metrics.
    fn endpoint(&self) -> Endpoint;
}

/// How far a subscriber is in what it reads.
pub trait Progress: Debug + Send + Sync + 'static {
    /// The partitions that are ours at this moment, by number. It does no I/O, and blocks no longer than a lock.
    fn partitions(&self) -> Vec<PartitionProgress>;

    /// How many messages wait for the group that nobody has on loan; `None`, the default, where that is not known here. A
    /// stopping router goes on receiving from a volatile broker until there are none.
    fn waiting(&self) -> Option<usize> {
        None
    }
}

/// How far a subscriber is in one partition. Offsets are the broker's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionProgress {
    /// The partition's number.
    pub partition: u32,
    /// Where the group would go on after a crash, as far as is known here.
    pub committed: Option<u64>,
    /// The lowest message that is not done; the one after the last when all are.
    pub low: Option<u64>,
    /// The one after the last message that was received.
    pub high: Option<u64>,
    /// From low to high, what is not done, lowest first: the first and last offset of each run. Of many runs, the first
    /// few.
    pub gaps: Vec<(u64, u64)>,
    /// Nothing more is received until the lowest message is done: what was received is as far ahead of it as it may be.
    pub waits: bool,
}

/// The loan behind one [`Delivery`].
///
/// Settling is synchronous, so that it also works when a delivery is dropped: a driver that needs I/O for it hands the
/// outcome to its own task or thread, and answers through [`Confirmation::channel`].
pub trait Lease: Debug + Send + Sync + 'static {
    /// Settles the delivery.
    ///
    /// # Contract
    /// It does not block. An outcome that the broker cannot carry out gives the message back and answers
    /// [`Unsupported`](crate::ErrorKind::Unsupported). After the lease or the partition is lost it changes nothing and
    /// answers [`Lost`](crate::ErrorKind::Lost).
    fn settle(self: Box<Self>, outcome: Outcome) -> Confirmation;

    /// Publishes `outbox` and acks the delivery in one step, or does neither.
    ///
    /// # Contract
    /// As [`settle`](Self::settle). Whoever reads only what is committed sees the messages of the outbox once for each
    /// message that was delivered, however often it was delivered, and in the order in which they were left. When the
    /// transaction fails for good or the lease is lost, nothing of it is seen, and the message is delivered again.
    /// Without [`Subscriber::begin_transactions`] the message is given back and the answer is
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    fn commit(self: Box<Self>, _outbox: Vec<Outgoing>) -> Confirmation {
        drop(self.settle(Outcome::Nack { after: None }));
        Confirmation::failed(no_transactions("pubsub"))
    }

    /// Asks for the loan to last until `by` from now.
    fn extend(&self, by: Duration) -> Confirmation;

    /// When the loan ends by itself; `None` for never.
    fn expires(&self) -> Option<Instant>;
}

/// How a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Handled: never deliver it again.
    Ack,
    /// Failed: deliver it again, after a delay if one is given. The attempt counts.
    Nack {
        /// The least time until the next delivery.
        after: Option<Duration>,
    },
    /// Hopeless: never deliver it again; keep it as a dead letter where the broker can.
    Reject {
        /// Why, for people.
        reason: String,
        /// What to keep: the message with what a router knows of its end in attributes. `None` from a
        /// [`Delivery::reject`], then it is the message as it is; a broker that keeps dead letters itself may always
        /// keep that.
        letter: Option<Box<Message>>,
    },
    /// Not handled at all: deliver it again; the attempt should not count.
    Return,
}

/// What a broker can do. What it cannot is answered with [`Unsupported`](crate::ErrorKind::Unsupported), never ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// A nacked message comes back from the broker.
    pub nack: bool,
    /// The broker delays the redelivery of a nacked message, and holds back later messages of its key meanwhile.
    pub nack_delay: bool,
    /// The broker keeps rejected messages as dead letters.
    pub reject: bool,
    /// Leases can be extended.
    pub extend: bool,
    /// How long a message is lent at a time, where the broker takes it back by itself: what a router holds its policy
    /// against before it starts.
    pub lease: Option<Duration>,
    /// Messages of a key are delivered in order.
    pub ordered_by_key: bool,
    /// Deliveries say how often the message was delivered. The broker counts; or, as on Kafka, the consumer does for as long
    /// as it has the message's partition, so that the count begins anew with the next owner.
    pub attempts: bool,
    /// A new group sees messages published before it existed.
    pub replay: bool,
    /// Messages can be published and others acked in one step.
    pub transactions: bool,
    /// Messages are gone with the process. A stopping router does not leave such a queue behind: it works it off.
    pub volatile: bool,
    /// What the broker accepts.
    pub limits: Limits,
}

/// The largest message that a broker accepts. `None` means that there is no such limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Messages in one batch.
    pub batch: Option<usize>,
    /// Bytes of body, key and attributes together.
    pub message_bytes: Option<usize>,
    /// Bytes of the key.
    pub key_bytes: Option<usize>,
    /// Number of attributes.
    pub attributes: Option<usize>,
    /// How long a message can be kept in all, however often its lease is extended.
    pub lease: Option<Duration>,
}

/// What is published to or received from, as metrics and the debug page name it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The broker's kind, for example `kafka`.
    pub system: &'static str,
    /// The topic, queue or subscription.
    pub destination: String,
    /// The consumer group, where there is one.
    pub group: Option<String>,
    /// What tells this broker from others of its kind: no transaction spans two.
    pub cluster: Option<String>,
}

/// A message to publish, and where to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outgoing {
    /// What is published to: an endpoint of the broker that is to publish it.
    pub destination: Endpoint,
    /// The message. Limits in [`Capabilities`] have been checked.
    pub message: Message,
}

impl Endpoint {
    /// An endpoint without a group.
    pub fn new(system: &'static str, destination: impl Into<String>) -> Self {
        Self { system, destination: destination.into(), group: None, cluster: None }
    }

    /// Sets the consumer group.
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets what tells this broker from others of its kind.
    pub fn with_cluster(mut self, cluster: impl Into<String>) -> Self {
        self.cluster = Some(cluster.into());
        self
    }
}

/// `kafka://orders`: without the group.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.system, self.destination)
    }
}

impl Outgoing {
    /// A message for `destination`.
    pub fn new(destination: Endpoint, message: Message) -> Self {
        Self { destination, message }
    }
}

fn no_transactions(backend: &'static str) -> Error {
    let what = "publishing and acking are two steps here: there are no transactions";
    Error::new(ErrorKind::Unsupported, "begin transactions", what).with_backend(backend)
}

fn no_topics(operation: &'static str, url: &Url) -> Error {
    let what = format!("the driver of `{}` neither makes nor removes topics", url.scheme());
    Error::new(ErrorKind::Unsupported, operation, what)
}
