//! The consumer's thread: polls always, fetches as there is room, commits every second, and leaves in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::{Error, ErrorKind};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::context::{ConsumerCx, Progress};
use super::feed::Feed;
use super::state::{Fetched, Room};
use super::transactions::{Fault, Transactions};
use crate::client::{self, millis};
use crate::error::{error, from_creation, from_kafka, kind};
use crate::options::{Options, Protocol, Reset};
use crate::{record, startup};

const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How soon after a transaction there may be another: messages share them.
const TRANSACT_EVERY: Duration = Duration::from_millis(50);
/// How long the broker may take for a transaction before the consumer looks after its other business.
const TRANSACT: Duration = Duration::from_secs(2);
/// How soon a transaction that was aborted is tried again.
const STUCK_PAUSE: Duration = Duration::from_millis(250);
/// How soon a producer for transactions may be fenced again before that is taken for a fight over its name.
const FENCED_AGAIN: Duration = Duration::from_secs(60);
/// How often brokers that are gone are asked whether they are back.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two polls. Something that happens ends it early.
const IDLE: Duration = Duration::from_millis(100);
/// Messages taken from one partition before the next has its turn.
const TURN: usize = 100;
/// How long leaving the group may take when nobody has set a deadline.
const LEAVE: Duration = Duration::from_secs(5);
/// How long to wait for one answer of a coordinator that may not be known yet.
const JOIN_STEP: Duration = Duration::from_millis(250);

/// What the client may fetch ahead of us, for each partition.
const FETCH_AHEAD_KIB: &str = "4096";
const FETCH_AHEAD_MESSAGES: &str = "100000";
/// How soon a partition whose buffer was full is fetched again.
const FETCH_PAUSE: Duration = Duration::from_millis(10);

type Opened = oneshot::Sender<Result<(), Error>>;

struct Worker<'a> {
    feed: &'a Arc<Feed>,
    options: &'a Options,
    protocol: Protocol,
    consumer: Arc<BaseConsumer<ConsumerCx>>,
    queues: BTreeMap<i32, Queue>,
    /// A message came past its partition's queue: the queue is to be split off anew.
    astray: Vec<i32>,
    next_commit: Instant,
}

/// A partition's own queue: to hold the partition back, it is not read.
struct Queue {
    generation: u64,
    messages: PartitionQueue<ConsumerCx>,
}

/// Why a consumer's work ended.
enum Ended {
    Stopped(Instant),
    /// The broker does not know the new group protocol.
    TooOld,
    /// Only what is committed tells where to go on.
    InDoubt {
        fenced: bool,
        what: String,
    },
    Failed(Error),
}

/// Works until told to stop, or until something fails for good; tells `opened` as soon as messages published from then
/// on are sure to come.
pub(super) fn run(options: &Options, group: &str, feed: &Arc<Feed>, opened: Opened) {
    feed.worked_by(thread::current());
    let mut opened = Some(opened);
    let mut protocol = match options.protocol {
        Protocol::Classic => Protocol::Classic,
        Protocol::Auto | Protocol::Consumer => Protocol::Consumer,
    };
    let (mut started_anew, mut last_fenced) = (false, None);
    let failure = loop {
        let ended = match Worker::start(options, group, feed, protocol, opened.as_ref()) {
            Ok(mut worker) => {
                let ended = worker.work(&mut opened);
                if let Ended::Stopped(deadline) = ended {
                    worker.leave(deadline);
                }
                worker.close();
                ended
            }
            Err(error) => Ended::Failed(error),
        };
        started_anew |= matches!(ended, Ended::InDoubt { .. });
        match ended {
            Ended::Stopped(_) => break None,
            Ended::TooOld => {
                info!(topic = options.topic, group, "the broker has no `consumer` groups; joining a classic one");
                protocol = Protocol::Classic;
            }
            Ended::InDoubt { fenced, what } => match begin_anew(options, feed, fenced, &what, &mut last_fenced) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            },
            // The brokers were there before: they will be there again.
            Ended::Failed(error) if opened.is_none() && started_anew && error.is_retryable() => {
                feed.set_down(Some((error.kind(), error.to_string())));
                if feed.stopping().is_some() {
                    break None;
                }
                thread::park_timeout(PAUSE);
            }
            Ended::Failed(error) => break Some(error),
        }
    };
    // Whatever is pending there is ended by the broker, or by the next owner of the name.
    drop(feed.transactions().take());
    match (failure, opened) {
        (Some(failure), Some(opened)) => {
            feed.end(None);
            // Whoever opened may be gone.
            let _ = opened.send(Err(failure));
        }
        (failure, _) => feed.end(failure),
    }
}

/// Has everything that is held given up, and makes another producer for transactions, which has the broker end the last
/// one, one way or the other. False when told to stop.
fn begin_anew(
    options: &Options,
    feed: &Feed,
    fenced: bool,
    what: &str,
    last_fenced: &mut Option<Instant>,
) -> Result<bool, Error> {
    let partitions: Vec<_> = feed.generations().into_keys().collect();
    drop(feed.forget(&partitions));
    let Some(old) = feed.transactions().take() else { return Ok(true) };
    let claim = Arc::clone(&old.claim);
    drop(old);
    if fenced && last_fenced.replace(Instant::now()).is_some_and(|last| last.elapsed() < FENCED_AGAIN) {
        let what = format!(
            "another process makes transactions as `{}`; give each member of the group an `instance=` of its own",
            claim.name()
        );
        return Err(error(ErrorKind::Other, "commit", what));
    }
    warn!(topic = options.topic, what, "a transaction's end is not known; beginning anew from what is committed");
    loop {
        if feed.stopping().is_some() {
            return Ok(false);
        }
        match Transactions::open(options, Arc::clone(&claim), Instant::now() + PAUSE) {
            Ok(transactions) => {
                feed.begin_transactions(transactions);
                feed.set_down(None);
                return Ok(true);
            }
            Err(error) if error.is_retryable() => {
                feed.set_down(Some((error.kind(), error.to_string())));
                thread::park_timeout(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

impl<'a> Worker<'a> {
    fn start(
        options: &'a Options,
        group: &str,
        feed: &'a Arc<Feed>,
        protocol: Protocol,
        opened: Option<&Opened>,
    ) -> Result<Self, Error> {
        let mut config = client::config(options);
        config
            .set("group.id", group)
            // Handed out is not handled: positions are committed here, and nowhere else.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", if options.reset == Reset::Latest { "latest" } else { "earliest" })
            .set("queued.max.messages.kbytes", FETCH_AHEAD_KIB)
            .set("queued.min.messages", FETCH_AHEAD_MESSAGES)
            .set("fetch.queue.backoff.ms", millis(FETCH_PAUSE))
            .set("statistics.interval.ms", "1000");
        if let Some(timeout) = options.rebalance_timeout {
            config.set("max.poll.interval.ms", millis(timeout));
        }
        if protocol == Protocol::Consumer {
            config.set("group.protocol", "consumer");
        } else {
            config.set("group.protocol", "classic").set("partition.assignment.strategy", "range");
            if let Some(timeout) = options.session_timeout {
                config.set("session.timeout.ms", millis(timeout)).set("heartbeat.interval.ms", millis(timeout / 10));
            }
        }
        let context = ConsumerCx::new(Arc::clone(feed), options, group);
        let consumer = BaseConsumer::from_config_and_context(&config, context);
        let mut consumer: BaseConsumer<_> = consumer.map_err(|cause| from_creation(&cause))?;
        consumer.set_nonempty_callback(waker());
        startup::check(
            options,
            &consumer.context().cause,
            |step| consumer.fetch_metadata(Some(&options.topic), step),
            // Without a subscription there is nothing but what the client has to say.
            || drop(consumer.poll(Duration::ZERO)),
            || opened.is_some_and(Opened::is_closed),
        )?;
        feed.cluster.get_or_init(|| startup::cluster(options, consumer.client()));
        consumer.subscribe(&[&options.topic]).map_err(|cause| from_kafka("subscribe", cause))?;
        let next_commit = Instant::now() + COMMIT_EVERY;
        let (consumer, queues) = (Arc::new(consumer), BTreeMap::new());
        consumer.context().belongs_to(&consumer);
        Ok(Self { feed, options, protocol, consumer, queues, astray: Vec::new(), next_commit })
    }

    fn work(&mut self, opened: &mut Option<Opened>) -> Ended {
        let grace = Instant::now() + self.options.grace;
        loop {
            if let Some(deadline) = self.feed.stopping() {
                return Ended::Stopped(deadline);
            }
            if let Err(ended) = self.poll() {
                return ended;
            }
            // A group that begins with what is new has a position only once it has its partitions; who has to
            // wait for the others of its group will not be kept waiting for that.
            let begun = self.options.reset == Reset::Earliest || self.consumer.context().joined.load(Relaxed);
            if (begun || Instant::now() >= grace)
                && let Some(opened) = opened.take()
                && opened.send(Ok(())).is_err()
            {
                return Ended::Stopped(Instant::now() + LEAVE);
            }
            let fetched = self.fetch();
            if self.feed.is_transactional() {
                if let Err(ended) = self.transact() {
                    return ended;
                }
            } else if Instant::now() >= self.next_commit {
                self.next_commit = Instant::now() + COMMIT_EVERY;
                let commits = self.feed.commits();
                if let Err(error) = self.consumer.context().commit_later(&self.consumer, &commits) {
                    warn!(topic = self.options.topic, %error, "commit failed; it will be tried again");
                    self.feed.recommit();
                }
            }
            if !fetched {
                let pause = if self.feed.is_transactional() { TRANSACT_EVERY } else { IDLE };
                thread::park_timeout(pause);
            }
        }
    }

    /// Commits what is done, if it is time to, in a transaction.
    fn transact(&mut self) -> Result<(), Ended> {
        let context = self.consumer.context();
        if let Some(fault) = context.take_fault() {
            return Err(fault.into());
        }
        if Instant::now() >= self.next_commit {
            let pause = match context.transact(&self.consumer, Instant::now() + TRANSACT)? {
                Progress::Stuck => STUCK_PAUSE,
                Progress::Committed | Progress::NothingLeft => TRANSACT_EVERY,
            };
            self.next_commit = Instant::now() + pause;
        }
        Ok(())
    }

    /// Serves the client's events, and takes in what comes past the queues: all of it, before a queue is read, or
    /// messages would overtake each other.
    fn poll(&mut self) -> Result<(), Ended> {
        let consumer = Arc::clone(&self.consumer);
        loop {
            let events = consumer.context().events();
            match consumer.poll(Duration::ZERO) {
                Some(Ok(record)) => {
                    let partition = record.partition();
                    self.feed.push(partition, std::iter::once(fetched(&record)));
                    if !self.astray.contains(&partition) {
                        self.astray.push(partition);
                    }
                }
                Some(Err(cause)) => self.heed(&cause)?,
                None if consumer.context().events() != events => {}
                None if self.split() => {}
                None => return Ok(()),
            }
        }
    }

    /// Gives partitions that have come a queue of their own, and drops the queues of those that have gone; true when
    /// there were any.
    fn split(&mut self) -> bool {
        if !self.consumer.context().moved.swap(false, Relaxed) && self.astray.is_empty() {
            return false;
        }
        let generations = self.feed.generations();
        let astray = std::mem::take(&mut self.astray);
        let stays = |partition: &i32, queue: &mut Queue| {
            generations.get(partition) == Some(&queue.generation) && !astray.contains(partition)
        };
        self.queues.retain(stays);
        for (partition, generation) in generations {
            if self.queues.contains_key(&partition) {
                continue;
            }
            // Without a queue the messages come by the consumer's own: not held back, but not lost either.
            if let Some(mut messages) = self.consumer.split_partition_queue(&self.options.topic, partition) {
                messages.set_nonempty_callback(waker());
                self.queues.insert(partition, Queue { generation, messages });
            }
        }
        true
    }

    /// Reads each queue as far as there is room; true when something was there.
    fn fetch(&self) -> bool {
        let mut any = false;
        for (partition, queue) in &self.queues {
            let Some(Room { messages, bytes }) = self.feed.room(*partition) else { continue };
            let (mut batch, mut size) = (Vec::new(), 0);
            while batch.len() < messages.min(TURN) && size < bytes {
                match queue.messages.poll(Duration::ZERO) {
                    Some(Ok(record)) => {
                        let fetched = fetched(&record);
                        size += fetched.size;
                        batch.push(fetched);
                    }
                    Some(Err(error)) => warn!(topic = self.options.topic, partition, %error, "cannot fetch"),
                    None => break,
                }
            }
            if !batch.is_empty() {
                any = true;
                self.feed.push(*partition, batch.into_iter());
            }
        }
        any
    }

    /// Decides what an error means. Most pass, and the client tries on by itself.
    fn heed(&self, cause: &KafkaError) -> Result<(), Ended> {
        let code = cause.rdkafka_error_code().unwrap_or(Code::Unknown);
        if matches!(cause, KafkaError::MessageConsumptionFatal(_)) || code == Code::Fatal {
            let (code, text) = self.consumer.client().fatal_error().unwrap_or((code, cause.to_string()));
            let too_old = matches!(code, Code::UnsupportedVersion | Code::UnsupportedFeature);
            if too_old && self.protocol == Protocol::Consumer && self.options.protocol == Protocol::Auto {
                return Err(Ended::TooOld);
            }
            return Err(Ended::Failed(error(kind(code), "receive", text).with_retryable(false)));
        }
        match code {
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => {
                Err(Ended::Failed(error(ErrorKind::PermissionDenied, "receive", code.to_string())))
            }
            // The group will not have us, however often we ask.
            Code::InvalidSessionTimeout | Code::InconsistentGroupProtocol | Code::InvalidGroupId => {
                Err(Ended::Failed(error(ErrorKind::Other, "receive", code.to_string())))
            }
            Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => {
                debug!(topic = self.options.topic, error = %cause, "connection lost");
                Ok(())
            }
            _ => {
                warn!(topic = self.options.topic, error = %cause, "cannot fetch; trying on");
                Ok(())
            }
        }
    }

    /// Commits, leaves the group, and waits until the broker knows.
    fn leave(&mut self, deadline: Instant) {
        self.be_member(deadline);
        if self.feed.is_transactional() {
            let all = match self.consumer.context().transact_all(&self.consumer, deadline) {
                Ok(all) => all,
                Err(fault) => {
                    warn!(topic = self.options.topic, error = %fault, "the last transaction failed");
                    false
                }
            };
            self.feed.committed(all);
        } else {
            self.commit_last(deadline);
        }
        self.consumer.unsubscribe();
        while !self.feed.generations().is_empty() && Instant::now() < deadline {
            drop(self.consumer.poll(Duration::from_millis(10)));
        }
    }

    fn commit_last(&self, deadline: Instant) {
        let commits = self.feed.commits();
        let committed = self.consumer.context().commit_now(&self.consumer, commits, deadline);
        self.feed.committed(committed.is_ok());
        if let Err(error) = committed {
            // Tried once more when the partitions are given up.
            debug!(topic = self.options.topic, %error, "commit failed");
        }
    }

    /// Waits until the broker has answered the request to join. Before that the client does not know that it is a member,
    /// and closes without a word: the broker would wait for it, and keep partitions for it, until its session ends.
    fn be_member(&self, deadline: Instant) {
        let end = deadline.min(Instant::now() + LEAVE);
        // A coordinator answers in the order it was asked. With the first answer it is known, and so the request to join
        // has been sent; the second answer comes after that to the request.
        let mut answers = 0;
        while answers < 2 && !self.consumer.context().joined.load(Relaxed) && Instant::now() < end {
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.options.topic, 0);
            match self.consumer.committed_offsets(list, JOIN_STEP) {
                Ok(_) => answers += 1,
                Err(error) => debug!(topic = self.options.topic, %error, "not a member yet"),
            }
            drop(self.consumer.poll(Duration::ZERO));
        }
    }

    /// Closes the client. It cannot while anything of it is alive elsewhere, hence the order.
    fn close(self) {
        let Self { consumer, queues, .. } = self;
        drop(queues);
        drop(consumer);
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unclear { fenced, what } => Self::InDoubt { fenced, what },
            Fault::Final(error) => Self::Failed(error),
        }
    }
}

fn fetched(record: &BorrowedMessage<'_>) -> Fetched {
    Fetched::new(record.offset(), record::message(record))
}

/// What the client calls when a queue is empty no longer.
fn waker() -> impl Fn() + Send + Sync + 'static {
    let thread = thread::current();
    move || thread.unpark()
}
