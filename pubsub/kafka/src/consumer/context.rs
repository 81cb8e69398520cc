//! What the client calls back, on the consumer's own thread: rebalances, commits, statistics, errors.
//!
//! No list of the client's is kept anywhere: while one is alive, the client cannot be closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::ErrorKind;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::feed::Feed;
use super::partition::Commit;
use super::transactions::{Done, Fault};
use crate::client::{self, Cause};
use crate::holes::Noted;
use crate::metrics::Consumed;
use crate::options::{COMMIT, Options, Reset};

/// How long a rebalance may wait for what the group has committed.
const LOOK_UP: Duration = Duration::from_secs(5);

/// How long a rebalance may wait for a transaction.
const REVOKE: Duration = Duration::from_secs(5);

/// The pause between two transactions when what is done has to be committed now.
const AGAIN: Duration = Duration::from_millis(20);

/// For how many statistics, one a second, no broker may be connected before that is called down.
const DOWN_AFTER: u32 = 3;

/// What came of an attempt at a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    NothingLeft,
    Committed,
    /// To be tried again after a pause.
    Stuck,
}

pub(super) struct ConsumerCx {
    feed: Arc<Feed>,
    /// The consumer itself, for commits on another thread.
    consumer: OnceLock<Weak<BaseConsumer<Self>>>,
    pub(super) cause: Cause,
    consumed: Consumed,
    topic: String,
    brokers: String,
    reset: Reset,
    drain: Duration,
    /// Counts what the client calls back: polling it answers nothing both for that and for having nothing.
    events: AtomicU64,
    /// Partitions have come or gone.
    pub(super) moved: AtomicBool,
    /// A first assignment has come, if an empty one.
    pub(super) joined: AtomicBool,
    /// The broker wants no metadata of that size.
    plain: AtomicBool,
    fault: Mutex<Option<Fault>>,
    without_broker: AtomicU32,
}

/// What an earlier owner has left of a partition.
struct Left {
    partition: i32,
    position: Option<i64>,
    /// The group has never committed anything of it.
    new: bool,
    noted: Noted,
}

impl ConsumerCx {
    pub(super) fn new(feed: Arc<Feed>, options: &Options, group: &str) -> Self {
        Self {
            feed,
            consumer: OnceLock::new(),
            cause: Cause::default(),
            consumed: Consumed::new(&options.topic, group),
            topic: options.topic.clone(),
            brokers: options.brokers.clone(),
            reset: options.reset,
            drain: options.drain,
            events: AtomicU64::new(0),
            moved: AtomicBool::new(false),
            joined: AtomicBool::new(false),
            plain: AtomicBool::new(false),
            fault: Mutex::default(),
            without_broker: AtomicU32::new(0),
        }
    }

    pub(super) fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// Names the consumer whose context this is.
    pub(super) fn belongs_to(&self, consumer: &Arc<BaseConsumer<Self>>) {
        let _ = self.consumer.set(Arc::downgrade(consumer));
    }

    /// Commits, with what is done above the positions noted beside them, and does not wait for the answer.
    pub(super) fn commit_later(&self, consumer: &BaseConsumer<Self>, commits: &[Commit]) -> KafkaResult<()> {
        self.commit(consumer, commits, CommitMode::Async)
    }

    /// Commits and waits for the answer until `deadline`. The client itself has no such limit: with a broker that is
    /// there and does not answer it waits for minutes. So a thread of its own does, and is left to it.
    pub(super) fn commit_now(
        &self,
        consumer: &BaseConsumer<Self>,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> KafkaResult<()> {
        // A consumer that is being dropped is nobody's any more; whoever drops it does nothing else.
        let Some(own) = self.consumer.get().and_then(Weak::upgrade).filter(|_| !commits.is_empty()) else {
            return self.commit(consumer, &commits, CommitMode::Sync);
        };
        let (sender, answer) = mpsc::sync_channel(1);
        let work = move || {
            // Whoever has given up waiting needs no answer.
            let _ = sender.send(own.context().commit(&own, &commits, CommitMode::Sync));
        };
        let unanswered = || KafkaError::ConsumerCommit(Code::RequestTimedOut);
        thread::Builder::new().name("kafka-commit".to_owned()).spawn(work).map_err(|_| unanswered())?;
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_else(|_| Err(unanswered()))
    }

    fn commit(&self, consumer: &BaseConsumer<Self>, commits: &[Commit], mode: CommitMode) -> KafkaResult<()> {
        if commits.is_empty() {
            return Ok(());
        }
        match consumer.commit(&self.list(commits.iter())?, mode) {
            Err(KafkaError::ConsumerCommit(Code::OffsetMetadataTooLarge)) => {
                self.plain.store(true, Relaxed);
                consumer.commit(&self.list(commits.iter())?, mode)
            }
            // Nothing new, which is no failure.
            Err(KafkaError::ConsumerCommit(Code::NoOffset)) => Ok(()),
            result => result,
        }
    }

    /// Positions as the client wants them.
    pub(super) fn list<'a>(&self, commits: impl Iterator<Item = &'a Commit>) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for commit in commits {
            let mut element = list.add_partition(&self.topic, commit.partition);
            element.set_offset(Offset::Offset(commit.position))?;
            // An empty one is not set: it would be allocated and never freed.
            if !commit.metadata.is_empty() && !self.plain.load(Relaxed) {
                element.set_metadata(&commit.metadata);
            }
        }
        Ok(list)
    }

    /// Commits what is done in a transaction, or ends the one that is pending.
    pub(super) fn transact(&self, consumer: &BaseConsumer<Self>, deadline: Instant) -> Result<Progress, Fault> {
        let mut transactions = self.feed.transactions();
        let Some(transactions) = transactions.as_mut() else { return Ok(Progress::NothingLeft) };
        let done = if transactions.is_pending() {
            transactions.finish(deadline)?
        } else {
            let batch = self.feed.batch();
            if batch.0.is_empty() {
                return Ok(Progress::NothingLeft);
            }
            transactions.run(batch, consumer, deadline)?
        };
        match done {
            Done::Committed(batch) => {
                self.feed.batch_committed(&batch);
                return Ok(Progress::Committed);
            }
            Done::Aborted(why) => warn!(topic = self.topic, why, "a transaction was aborted; it will be tried again"),
            Done::NotYet => debug!(topic = self.topic, "the broker has not ended a transaction yet"),
        }
        Ok(Progress::Stuck)
    }

    /// Commits all that is done, in transactions, until `deadline`; true when nothing is left.
    pub(super) fn transact_all(&self, consumer: &BaseConsumer<Self>, deadline: Instant) -> Result<bool, Fault> {
        loop {
            match self.transact(consumer, deadline)? {
                Progress::NothingLeft => return Ok(true),
                _ if Instant::now() >= deadline || consumer.assignment_lost() => return Ok(false),
                Progress::Committed => {}
                Progress::Stuck => thread::sleep(AGAIN),
            }
        }
    }

    /// What went wrong with transactions while the client was calling back.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let committed = self.committed(consumer, partitions);
        if self.reset == Reset::Latest {
            self.begin(consumer, &committed);
        }
        let positions: Vec<_> = committed.iter().filter_map(|left| Some((left.partition, left.position?))).collect();
        self.feed.assign(committed.into_iter().map(|left| (left.partition, left.noted)));
        for (partition, position) in positions {
            self.feed.noted_at(partition, position);
        }
        self.consumed.assigned(partitions);
        info!(topic = self.topic, ?partitions, "partitions assigned");
    }

    /// What earlier owners have left of each partition.
    fn committed(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Vec<Left> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        let list = match consumer.committed_offsets(list, LOOK_UP) {
            Ok(list) => list,
            Err(error) => {
                warn!(topic = self.topic, %error, "cannot see what was noted as done; some messages may be handled again");
                let unknown = |partition: &i32| Left {
                    partition: *partition,
                    position: None,
                    new: false,
                    noted: Noted::default(),
                };
                return partitions.iter().map(unknown).collect();
            }
        };
        let elements = list.elements();
        let noted = elements.iter().map(|element| {
            let partition = element.partition();
            let Offset::Offset(position) = element.offset() else {
                return Left { partition, position: None, new: true, noted: Noted::default() };
            };
            // The client panics where another has written what is not text.
            let text = catch_unwind(AssertUnwindSafe(|| element.metadata())).unwrap_or_default();
            Left { partition, position: Some(position), new: false, noted: Noted::decode(position, text) }
        });
        noted.collect()
    }

    /// Notes where a new group begins, so that it does not begin later after a crash before its first commit.
    fn begin(&self, consumer: &BaseConsumer<Self>, committed: &[Left]) {
        let mut commits = Vec::new();
        for &Left { partition, .. } in committed.iter().filter(|left| left.new) {
            match consumer.fetch_watermarks(&self.topic, partition, LOOK_UP) {
                Ok((_low, high)) => {
                    commits.push(Commit { partition, position: high, metadata: String::new() });
                }
                Err(error) => warn!(topic = self.topic, partition, %error, "cannot see where the partition ends"),
            }
        }
        if let Err(error) = self.commit_now(consumer, commits, Instant::now() + COMMIT) {
            warn!(topic = self.topic, %error, "cannot note where the group begins");
        }
    }

    /// Lets what is being handled finish, commits it, and gives the partitions up.
    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let lost = consumer.assignment_lost();
        let budget = if lost { Duration::ZERO } else { self.drain };
        let out = self.feed.drain(partitions, budget);
        if out > 0 && self.feed.stopping().is_none() {
            warn!(topic = self.topic, out, waited = ?budget, "partitions leave with messages in work; those will be handled again");
        }
        if self.feed.is_transactional() {
            let all = !lost && self.transact_revoked(consumer);
            drop(self.feed.forget(partitions));
            self.consumed.revoked(partitions);
            self.feed.committed(all);
            match all {
                true => info!(topic = self.topic, ?partitions, "partitions revoked"),
                false => warn!(
                    topic = self.topic,
                    ?partitions,
                    "partitions were lost; what was not committed is handled again elsewhere"
                ),
            }
            return;
        }
        let commits = self.feed.forget(partitions);
        self.consumed.revoked(partitions);
        let committed = match lost {
            true => Err(KafkaError::ConsumerCommit(Code::AssignmentLost)),
            // The answer is the fence: that the membership was not lost before says nothing about now.
            false => {
                let end = Instant::now() + COMMIT;
                self.commit_now(consumer, commits, self.feed.stopping().map_or(end, |deadline| deadline.min(end)))
            }
        };
        self.feed.committed(committed.is_ok());
        match committed {
            Ok(()) => info!(topic = self.topic, ?partitions, "partitions revoked"),
            Err(error) => {
                warn!(topic = self.topic, ?partitions, %error, "partitions were lost; what was acked since the last commit may be handled again");
            }
        }
    }

    /// Commits what is done before partitions are given up; true when nothing was left.
    fn transact_revoked(&self, consumer: &BaseConsumer<Self>) -> bool {
        let deadline = self.feed.stopping().unwrap_or_else(|| Instant::now() + REVOKE);
        self.transact_all(consumer, deadline.max(Instant::now() + AGAIN)).unwrap_or_else(|fault| {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            false
        })
    }

    fn of<'a>(&'a self, list: &'a TopicPartitionList) -> Vec<i32> {
        list.elements()
            .iter()
            .filter(|element| element.topic() == self.topic)
            .map(|element| element.partition())
            .collect()
    }

    /// Whether brokers answer, as the last statistics have it.
    fn watch(&self, statistics: &Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.without_broker.store(0, Relaxed);
            self.cause.clear();
            self.feed.set_down(None);
        } else if self.without_broker.fetch_add(1, Relaxed) + 1 >= DOWN_AFTER {
            let error = self.cause.error(&self.brokers);
            let kind = match error.kind() {
                ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            };
            self.feed.set_down(Some((kind, format!("no broker can be reached: {error}"))));
        }
    }
}

impl ClientContext for ConsumerCx {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.events.fetch_add(1, Relaxed);
        client::log(level, facility, text);
    }

    fn error(&self, cause: KafkaError, reason: &str) {
        self.cause.note(&cause, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.events.fetch_add(1, Relaxed);
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => self.stats(statistics),
            Err(error) => debug!(%error, "cannot read the client's statistics"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.watch(&statistics);
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        for partition in topic.partitions.values() {
            self.consumed.lag(partition.partition, partition.consumer_lag);
            if partition.committed_offset >= 0 {
                self.feed.noted_at(partition.partition, partition.committed_offset);
            }
        }
    }
}

impl ConsumerContext for ConsumerCx {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.events.fetch_add(1, Relaxed);
        match rebalance {
            Rebalance::Assign(list) => {
                self.joined.store(true, Relaxed);
                let partitions = self.of(list);
                if !partitions.is_empty() {
                    self.assign(consumer, &partitions);
                }
            }
            Rebalance::Revoke(list) => {
                let partitions = self.of(list);
                if !partitions.is_empty() {
                    self.revoke(consumer, &partitions);
                }
            }
            Rebalance::Error(error) => warn!(topic = self.topic, %error, "rebalance failed"),
        }
        self.moved.store(true, Relaxed);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        self.events.fetch_add(1, Relaxed);
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => return,
            Err(KafkaError::ConsumerCommit(Code::OffsetMetadataTooLarge)) => self.plain.store(true, Relaxed),
            Err(error) => warn!(topic = self.topic, %error, "commit failed; it will be tried again"),
        }
        self.feed.recommit();
    }
}
