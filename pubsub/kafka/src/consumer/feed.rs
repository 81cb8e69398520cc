//! What lies between the consumer's thread, which fetches, and those who handle: messages one way, settlements back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Context;
use std::thread::Thread;
use std::time::{Duration, Instant as Clock};

use mainspring_pubsub::driver::{Confirmation, Delivery, Outcome, PartitionProgress, Progress};
use mainspring_pubsub::{Error, ErrorKind, Position};
use tokio::time::Instant;

use super::lease::KafkaLease;
use super::partition::{Commit, Partition};
use super::state::{Entry, Fetched, Room, State, owned};
use super::transactions::Transactions;
use crate::SYSTEM;
use crate::error::error;
use crate::holes::Noted;

/// Messages and bytes that wait to be handed out before fetching pauses. One message may go over.
const MAX_MESSAGES: usize = 2000;
const MAX_BYTES: usize = 8 << 20;
/// How far handling may be ahead of the lowest message of a partition that is not done.
const MAX_GAP: usize = 10_000;
/// Bytes that handlers may have left, to be committed, before fetching pauses.
const MAX_HELD: usize = 64 << 20;
/// When a rejected message comes again, since there is no place for dead letters.
const REJECT_PAUSE: Duration = Duration::from_secs(10);

/// Runs of messages that are not done which are shown for a partition.
const SHOWN_GAPS: usize = 100;

#[derive(Default)]
pub(super) struct Feed {
    state: Mutex<State>,
    /// Wakes the consumer's thread in a rebalance, when nothing is out any more.
    drained: Condvar,
    worker: OnceLock<Thread>,
    pub(super) is_transactional: AtomicBool,
    /// The consumer's thread's own, once there are any.
    transactions: Mutex<Option<Transactions>>,
    /// Which cluster the brokers belong to.
    pub(super) cluster: OnceLock<String>,
}

/// Nothing to hand out: for good, or until a waker or the clock says so.
pub(super) enum Nothing {
    Closed,
    Failed(Error),
    Until(Option<Instant>),
}

/// The side of those who handle.
impl Feed {
    /// Hands out the oldest message that is ready. Otherwise wakes `cx` when there is one.
    pub(super) fn poll_lend(self: &Arc<Self>, cx: &mut Context<'_>) -> Result<Delivery, Nothing> {
        let mut state = self.lock();
        let due = state.tick();
        let Some(mut entry) = state.ready.pop_front() else {
            if let Some(failure) = state.failure.take() {
                state.closed = true;
                return Err(Nothing::Failed(failure));
            }
            if state.closed {
                return Err(Nothing::Closed);
            }
            if let Some((kind, what)) = &state.down {
                return Err(Nothing::Failed(error(*kind, "receive", what.clone()).with_retryable(true)));
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => state.waker = Some(cx.waker().clone()),
            }
            return Err(Nothing::Until(due));
        };
        state.bytes -= entry.size;
        entry.attempt += 1;
        if let Some(partition) = state.partitions.get_mut(&entry.partition) {
            partition.out += 1;
        }
        let hungry = state.hungry && state.ready.len() <= MAX_MESSAGES / 2 && state.bytes <= MAX_BYTES / 2;
        if hungry {
            state.hungry = false;
        }
        drop(state);
        if hungry {
            self.wake_worker();
        }
        let (message, attempt) = (Arc::clone(&entry.message), entry.attempt);
        let position = u32::try_from(entry.partition).ok().zip(u64::try_from(entry.offset).ok());
        let delivery = Delivery::new(message, Box::new(KafkaLease::new(Arc::clone(self), entry))).with_attempt(attempt);
        Ok(match position {
            Some((partition, offset)) => delivery.with_position(Position::new(partition, offset)),
            None => delivery,
        })
    }

    pub(super) fn settle(&self, mut entry: Entry, outcome: Outcome) -> Confirmation {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(partition) = owned(&mut state.partitions, &entry) else { return Confirmation::lost(SYSTEM) };
        self.back(partition);
        let rejected = matches!(outcome, Outcome::Reject { .. });
        let pause = match outcome {
            Outcome::Ack => {
                partition.finish(entry.number);
                if std::mem::take(&mut state.hungry) {
                    self.wake_worker();
                }
                return Confirmation::settled();
            }
            Outcome::Nack { after } => after.unwrap_or_default(),
            Outcome::Reject { .. } => REJECT_PAUSE,
            // Not handled, whatever it is called: again, and the attempt does not count.
            _ => {
                entry.attempt -= 1;
                Duration::ZERO
            }
        };
        // What is about to leave comes again elsewhere.
        if !partition.leaving {
            state.bytes += entry.size;
            match pause.is_zero() {
                true => state.make_ready(entry),
                false => drop(state.delayed.insert((Instant::now() + pause, entry.order), entry)),
            }
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
        if rejected {
            let what = "Kafka keeps no dead letters; the message is delivered again in 10 s. Give the router a publisher for them";
            return Confirmation::failed(error(ErrorKind::Unsupported, "reject", what));
        }
        Confirmation::settled()
    }

    /// A message of the partition is out no longer.
    pub(super) fn back(&self, partition: &mut Partition) {
        partition.out -= 1;
        if partition.leaving && partition.out == 0 {
            self.drained.notify_all();
        }
    }

    /// Whether the loan still stands.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        owned(&mut self.lock().partitions, entry).is_some()
    }

    /// Whether the last commit that the consumer's thread waited for did not land.
    pub(super) fn uncommitted(&self) -> bool {
        self.lock().uncommitted
    }

    /// Has the consumer's thread end, until `deadline` if it can.
    pub(super) fn stop(&self, deadline: Clock) {
        let mut state = self.lock();
        state.stop.get_or_insert(deadline);
        state.close();
        drop(state);
        self.drained.notify_all();
        self.wake_worker();
    }
}

/// The side of the consumer's thread.
impl Feed {
    /// Names the thread that fetches.
    pub(super) fn worked_by(&self, worker: Thread) {
        let _ = self.worker.set(worker);
    }

    pub(super) fn wake_worker(&self) {
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }

    /// By when to have ended, if it is time to.
    pub(super) fn stopping(&self) -> Option<Clock> {
        self.lock().stop
    }

    pub(super) fn assign(&self, partitions: impl Iterator<Item = (i32, Noted)>) {
        let mut state = self.lock();
        for (number, noted) in partitions {
            state.purge(|entry| entry.partition == number);
            let generation = state.generation();
            let old = state.partitions.insert(number, Partition::new(generation, noted));
            state.held_bytes -= old.map_or(0, |mut old| old.held.lose());
        }
    }

    /// Hands out nothing more of these partitions, and waits until nothing of them is out; answers how much still is.
    pub(super) fn drain(&self, partitions: &[i32], budget: Duration) -> usize {
        let mut state = self.lock();
        state.purge(|entry| partitions.contains(&entry.partition));
        for (_, partition) in state.of(partitions) {
            partition.leaving = true;
        }
        let busy =
            |state: &mut State| state.stop.is_none() && state.of(partitions).any(|(_, partition)| partition.out > 0);
        let waited = self.drained.wait_timeout_while(state, budget, busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.of(partitions).map(|(_, partition)| partition.out).sum()
    }

    /// Gives these partitions up: from now on, what belongs to them is lost. Answers what to commit.
    pub(super) fn forget(&self, partitions: &[i32]) -> Vec<Commit> {
        let mut state = self.lock();
        state.purge(|entry| partitions.contains(&entry.partition));
        let mut commits = Vec::new();
        for number in partitions {
            let Some(mut partition) = state.partitions.remove(number) else { continue };
            state.held_bytes -= partition.held.lose();
            commits.extend(partition.commit(*number));
        }
        commits
    }

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
    pub(super) fn committed(&self, landed: bool) {
        self.lock().uncommitted = !landed;
    }

    /// The broker has noted that the group goes on there.
    pub(super) fn noted_at(&self, number: i32, position: i64) {
        if let Some(partition) = self.lock().partitions.get_mut(&number) {
            partition.committed = Some(position);
        }
    }

    /// The partitions that are ours, and since which generation.
    pub(super) fn generations(&self) -> BTreeMap<i32, u64> {
        self.lock().partitions.iter().map(|(number, partition)| (*number, partition.generation)).collect()
    }

    /// How much may be fetched of a partition; if nothing, the thread is woken when that changes.
    pub(super) fn room(&self, partition: i32) -> Option<Room> {
        let mut state = self.lock();
        let waiting = state.ready.len() + state.delayed.len();
        let span = state.partitions.get(&partition).filter(|partition| !partition.leaving)?.span();
        if waiting >= MAX_MESSAGES || state.bytes >= MAX_BYTES || span >= MAX_GAP || state.held_bytes >= MAX_HELD {
            state.hungry = true;
            return None;
        }
        Some(Room { messages: (MAX_MESSAGES - waiting).min(MAX_GAP - span), bytes: MAX_BYTES - state.bytes })
    }

    /// Takes in what was fetched of a partition, in order.
    pub(super) fn push(&self, number: i32, batch: impl Iterator<Item = Fetched>) {
        let mut state = self.lock();
        for fetched in batch {
            state.push(number, fetched);
        }
        let waker = if state.ready.is_empty() { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Says that the brokers cannot be reached, or that they can.
    pub(super) fn set_down(&self, down: Option<(ErrorKind, String)>) {
        let mut state = self.lock();
        let news = down.is_some() && state.down.is_none();
        state.down = down;
        if news && let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Nothing more will come.
    pub(super) fn end(&self, failure: Option<Error>) {
        let mut state = self.lock();
        state.close();
        for (_, mut partition) in std::mem::take(&mut state.partitions) {
            partition.held.lose();
        }
        state.held_bytes = 0;
        state.failure = failure;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Locked for as long as the broker takes to answer: by the consumer's thread alone, once there are any.
    pub(super) fn transactions(&self) -> MutexGuard<'_, Option<Transactions>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Feed {
    fn partitions(&self) -> Vec<PartitionProgress> {
        let state = self.lock();
        let partitions: BTreeMap<_, _> = state.partitions.iter().collect();
        let known =
            partitions.into_iter().filter_map(|(number, partition)| Some((u32::try_from(*number).ok()?, partition)));
        known.map(|(number, partition)| partition.progress(number, SHOWN_GAPS)).collect()
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Feed").field("ready", &state.ready.len()).field("partitions", &state.partitions.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use mainspring_pubsub::Message;

    use super::*;

    fn feed() -> Arc<Feed> {
        let feed = Arc::new(Feed::default());
        feed.assign([(0, Noted::default()), (1, Noted::default())].into_iter());
        feed
    }

    fn push(feed: &Feed, partition: i32, offsets: std::ops::Range<i64>) {
        feed.push(partition, offsets.map(|offset| Fetched::new(offset, Message::new(offset.to_string()))));
    }

    fn lend(feed: &Arc<Feed>) -> Option<Delivery> {
        feed.poll_lend(&mut Context::from_waker(Waker::noop())).ok()
    }

    fn kind(confirmation: Confirmation) -> Option<ErrorKind> {
        use futures_util::FutureExt;
        confirmation.now_or_never().unwrap().err().map(|error| error.kind())
    }

    #[test]
    fn what_comes_again_comes_at_its_old_place() {
        let feed = feed();
        push(&feed, 0, 0..4);
        let (zero, one) = (lend(&feed).unwrap(), lend(&feed).unwrap());
        drop(one);
        drop(zero);
        let offsets = std::iter::from_fn(|| lend(&feed)).map(|delivery| {
            let place = (delivery.position().unwrap().offset, delivery.attempt());
            assert_eq!(kind(delivery.ack()), None);
            place
        });
        assert_eq!(offsets.collect::<Vec<_>>(), [(0, Some(2)), (1, Some(2)), (2, Some(1)), (3, Some(1))]);
    }

    #[test]
    fn a_partition_that_comes_back_is_another() {
        let feed = feed();
        push(&feed, 0, 0..2);
        let (acked, late) = (lend(&feed).unwrap(), lend(&feed).unwrap());
        assert_eq!(kind(acked.ack()), None);
        assert_eq!(feed.drain(&[0], Duration::ZERO), 1);
        let commits = feed.forget(&[0]);
        assert_eq!((commits.len(), commits[0].position), (1, 1));
        feed.assign([(0, Noted::default())].into_iter());
        push(&feed, 0, 1..2);
        assert_eq!(kind(late.ack()), Some(ErrorKind::Lost));
        assert_eq!(feed.commits().len(), 0, "the late ack changed nothing");
        assert_eq!(lend(&feed).unwrap().position(), Some(Position::new(0, 1)));
    }

    #[test]
    fn leaving_partitions_wait_for_what_is_out_and_hand_out_nothing_more() {
        let feed = feed();
        push(&feed, 0, 0..3);
        let (first, second) = (lend(&feed).unwrap(), lend(&feed).unwrap());
        let (drained, waits) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let feed = Arc::clone(&feed);
            move || drained.send(feed.drain(&[0], Duration::from_secs(60))).unwrap()
        });
        while feed.room(0).is_some() {
            std::thread::yield_now();
        }
        assert!(lend(&feed).is_none());
        assert_eq!(kind(first.ack()), None);
        assert!(waits.try_recv().is_err());
        // Given back and not done: it comes again elsewhere.
        drop(second);
        assert_eq!(waits.recv().unwrap(), 0);
        thread.join().unwrap();
        assert!(lend(&feed).is_none());
        assert_eq!(feed.forget(&[0])[0].position, 1);
    }

    #[test]
    fn fetching_pauses_when_much_waits_or_one_message_is_far_behind() {
        let feed = feed();
        push(&feed, 0, 0..MAX_MESSAGES as i64);
        assert!(feed.room(0).is_none() && feed.room(1).is_none());
        let stuck = lend(&feed).unwrap();
        let mut next = MAX_MESSAGES as i64;
        loop {
            while let Some(delivery) = lend(&feed) {
                assert_eq!(kind(delivery.ack()), None);
            }
            let Some(room) = feed.room(0) else { break };
            push(&feed, 0, next..next + room.messages as i64);
            next += room.messages as i64;
        }
        assert_eq!(next, MAX_GAP as i64);
        assert!(feed.room(1).is_some(), "only its own partition waits");
        assert_eq!(kind(stuck.ack()), None);
        assert!(feed.room(0).is_some());
    }

    #[test]
    fn a_log_that_was_cut_begins_anew() {
        let feed = feed();
        push(&feed, 0, 100..103);
        let old = lend(&feed).unwrap();
        push(&feed, 0, 0..1);
        assert_eq!(kind(old.ack()), Some(ErrorKind::Lost));
        let new = lend(&feed).unwrap();
        assert_eq!(new.position(), Some(Position::new(0, 0)));
        assert_eq!(kind(new.ack()), None);
        assert_eq!(feed.commits()[0].position, 1);
    }

    #[test]
    fn after_the_end_there_is_one_error_and_then_nothing() {
        let feed = feed();
        push(&feed, 0, 0..1);
        let out = lend(&feed).unwrap();
        feed.end(Some(error(ErrorKind::Other, "receive", "broken")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(feed.poll_lend(&mut cx), Err(Nothing::Failed(_))));
        assert!(matches!(feed.poll_lend(&mut cx), Err(Nothing::Closed)));
        assert_eq!(kind(out.ack()), Some(ErrorKind::Lost));
    }
}
