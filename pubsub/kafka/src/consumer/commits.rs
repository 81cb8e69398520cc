//! When an offset is committed: every second, when its partition is given up, and when the consumer leaves.
//!
//! What is committed is where the group would have to go on, with what is done above that noted beside it. Every commit
//! is answered for: what one that is refused had, the next one has. The client waits for answers without any limit, so it
//! does that on threads of their own, which are left to it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::{Error, ErrorKind};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, warn};

use super::context::ConsumerCx;
use super::feed::Feed;
use super::partition::Commit;
use super::worker::Worker;
use crate::error::{from_kafka, kind};
use crate::options::COMMIT;

/// How often what is done is committed while nothing else asks for it.
pub(super) const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// The pause before a coordinator that could not answer yet is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// The one commit that is under way beside the consumer's thread.
struct UnderWay(Arc<BaseConsumer<ConsumerCx>>);

impl Worker<'_> {
    /// Commits what is done, if it is time to.
    pub(super) fn commit(&mut self) {
        if Instant::now() >= self.next_commit {
            self.next_commit = Instant::now() + COMMIT_EVERY;
            self.consumer.context().commit_later();
        }
    }

    /// Commits before leaving, and notes whether that landed.
    pub(super) fn commit_last(&self, deadline: Instant) {
        let commits = self.feed.commits();
        let committed = self.consumer.context().commit_now(&self.consumer, commits, deadline);
        if let Err(error) = &committed {
            self.consumer.context().commit_failed(error);
            debug!(topic = self.options.topic, %error, "commit failed");
            // Tried once more when the partitions are given up.
            self.feed.recommit();
        }
        self.feed.committed(committed.map_err(|cause| from_kafka("commit", cause)));
    }
}

impl ConsumerCx {
    /// Commits what is done, and does not wait for the answer. While an earlier commit still waits for its own, the next
    /// one will have what this one would have.
    fn commit_later(&self) {
        let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else { return };
        if self.committing.swap(true, Relaxed) {
            return;
        }
        let under_way = UnderWay(consumer);
        let commits = self.feed.commits();
        if commits.is_empty() {
            return;
        }
        let work = move || {
            let UnderWay(consumer) = &under_way;
            let context = consumer.context();
            if let Err(error) = context.send_commits(consumer, &commits) {
                context.commit_failed(&error);
                warn!(topic = context.topic, %error, "commit failed; it will be tried again");
                context.feed.recommit();
            }
        };
        if let Err(error) = thread::Builder::new().name("kafka-commit".to_owned()).spawn(work) {
            warn!(topic = self.topic, %error, "no thread to commit with; it will be tried again");
            self.feed.recommit();
        }
    }

    /// Commits and waits for the answer until `deadline`. With a broker that is there and does not answer, the client would
    /// for minutes. One that cannot answer yet, since another has just become the group's coordinator, is asked again.
    pub(super) fn commit_now(
        &self,
        consumer: &BaseConsumer<Self>,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> KafkaResult<()> {
        // A consumer that is being dropped is nobody's any more; whoever drops it does nothing else.
        let Some(own) = self.consumer.get().and_then(Weak::upgrade).filter(|_| !commits.is_empty()) else {
            return self.send_commits(consumer, &commits);
        };
        let (sender, answer) = mpsc::sync_channel(1);
        let enough = deadline.min(Instant::now() + COMMIT);
        let work = move || {
            let committed = loop {
                match own.context().send_commits(&own, &commits) {
                    Err(error) if will_pass(&error) && Instant::now() + AGAIN < enough => thread::sleep(AGAIN),
                    committed => break committed,
                }
            };
            // Whoever has given up waiting needs no answer.
            let _ = sender.send(committed);
        };
        let unanswered = || KafkaError::ConsumerCommit(Code::RequestTimedOut);
        thread::Builder::new().name("kafka-commit".to_owned()).spawn(work).map_err(|_| unanswered())?;
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_else(|_| Err(unanswered()))
    }

    /// Counts a commit that did not land.
    pub(super) fn commit_failed(&self, error: &KafkaError) {
        self.consumed.settle_failed(error.rdkafka_error_code().map_or(ErrorKind::Other, kind).as_str());
    }

    fn send_commits(&self, consumer: &BaseConsumer<Self>, commits: &[Commit]) -> KafkaResult<()> {
        if commits.is_empty() {
            return Ok(());
        }
        match consumer.commit(&self.list(commits.iter())?, CommitMode::Sync) {
            Err(KafkaError::ConsumerCommit(Code::OffsetMetadataTooLarge)) => {
                self.plain.store(true, Relaxed);
                consumer.commit(&self.list(commits.iter())?, CommitMode::Sync)
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
}

impl Feed {
    /// What has been done and not been committed.
    pub(super) fn commits(&self) -> Vec<Commit> {
        let mut state = self.lock();
        let dirty = state.partitions.iter_mut().filter(|(_, partition)| partition.dirty);
        dirty.filter_map(|(number, partition)| partition.commit(*number)).collect()
    }

    /// The last commit did not land: everything is to be committed again.
    pub(super) fn recommit(&self) {
        for partition in self.lock().partitions.values_mut() {
            partition.dirty = true;
        }
    }

    /// Notes whether a commit landed that was waited for.
    pub(super) fn committed(&self, landed: Result<(), Error>) {
        self.lock().uncommitted = landed.err();
    }

    /// The broker has noted that the group goes on there.
    pub(super) fn noted_at(&self, number: i32, position: i64) {
        if let Some(partition) = self.lock().partitions.get_mut(&number) {
            partition.committed = Some(position);
        }
    }

    /// Why the last commit that the consumer's thread waited for did not land, if it did not.
    pub(super) fn uncommitted(&self) -> Option<Error> {
        self.lock().uncommitted.take()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.context().committing.store(false, Relaxed);
    }
}

fn will_pass(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| kind(code) == ErrorKind::Unavailable)
}
