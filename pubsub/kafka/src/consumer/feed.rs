//! What lies between the consumer's thread, which fetches, and those who handle: messages one way, settlements back.
//!
//! Here is what fills it, and how much it holds; `lend.rs` has what those who handle do, `commits.rs` what is committed, and
//! `rebalance.rs` how partitions come and go.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use mainspring_pubsub::driver::{PartitionProgress, Progress};
use mainspring_pubsub::{Error, ErrorKind};

use super::state::{Fetched, Queued, Room, State, owned};
use super::transactions::Transactions;
use super::waiting::Halted;

/// Messages and bytes that wait to be handed out before fetching pauses. One message may go over. Small ones are many, so
/// that the two sides need not wake each other for every few.
pub(super) const MAX_MESSAGES: usize = 8000;
pub(super) const MAX_BYTES: usize = 4 << 20;
/// How far handling may be ahead of the lowest message of a partition that is not done.
pub(super) const MAX_GAP: usize = 10_000;
/// Bytes that handlers may have left, to be committed, before fetching pauses.
const MAX_HELD: usize = 64 << 20;

/// Runs of messages that are not done which are shown for a partition.
const SHOWN_GAPS: usize = 100;

#[derive(Default)]
pub(super) struct Feed {
    /// What the reader has taken over and hands out next, in order. Locked before the state, where both are.
    run: Mutex<VecDeque<Queued>>,
    state: Mutex<State>,
    /// Wakes the consumer's thread in a rebalance, when nothing is out any more.
    pub(super) drained: Condvar,
    worker: OnceLock<Thread>,
    pub(super) is_transactional: AtomicBool,
    /// The consumer's thread's own, once there are any.
    transactions: Mutex<Option<Transactions>>,
    /// Which cluster the brokers belong to.
    pub(super) cluster: OnceLock<String>,
}

impl Feed {
    /// Has the consumer's thread end, until `deadline` if it can.
    pub(super) fn stop(&self, deadline: Instant) {
        let (mut run, mut state) = self.lock_all();
        state.stop.get_or_insert(deadline);
        run.clear();
        state.close();
        drop((run, state));
        self.drained.notify_all();
        self.wake_worker();
    }

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
    pub(super) fn stopping(&self) -> Option<Instant> {
        self.lock().stop
    }

    /// How much may be fetched of a partition; if nothing, the thread is woken when that changes.
    pub(super) fn room(&self, partition: i32) -> Option<Room> {
        let mut state = self.lock();
        let waiting = state.ready.len() + state.delayed.len();
        let partition = state.partitions.get_mut(&partition).filter(|partition| !partition.leaving)?;
        let span = partition.span();
        partition.far_ahead = span >= MAX_GAP;
        if partition.far_ahead {
            return None;
        }
        if waiting >= MAX_MESSAGES || state.bytes >= MAX_BYTES || state.held_bytes >= MAX_HELD {
            state.hungry = true;
            return None;
        }
        Some(Room { messages: (MAX_MESSAGES - waiting).min(MAX_GAP - span), bytes: MAX_BYTES - state.bytes })
    }

    /// The partitions of which nothing more is fetched until their lowest message is done.
    pub(super) fn halted(&self) -> Vec<Halted> {
        let state = self.lock();
        let halted = state.partitions.iter().filter(|(_, partition)| partition.far_ahead);
        halted
            .filter_map(|(number, partition)| {
                Some(Halted { partition: *number, offset: partition.position()?, ahead: partition.span() })
            })
            .collect()
    }

    /// Takes in what was fetched of a partition, in order.
    pub(super) fn push(&self, number: i32, batch: impl Iterator<Item = Fetched>) {
        let mut state = self.lock();
        let mut cut = false;
        for fetched in batch {
            cut |= state.push(number, fetched);
        }
        let waker = if state.ready.is_empty() { None } else { state.waker.take() };
        drop(state);
        if cut {
            let (mut run, mut state) = self.lock_all();
            run.retain(|entry| owned(&mut state.partitions, entry).is_some());
        }
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

    /// Says that nothing comes though brokers answer, and why, or that nothing is wrong.
    pub(super) fn set_fault(&self, fault: Option<(ErrorKind, String)>) {
        let mut state = self.lock();
        state.fault = fault;
        if state.fault.is_some()
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
    }

    /// The group has let us in.
    pub(super) fn set_joined(&self) {
        let mut state = self.lock();
        state.joined = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn has_joined(&self) -> bool {
        self.lock().joined
    }

    /// Nothing more will come.
    pub(super) fn end(&self, failure: Option<Error>) {
        let (mut run, mut state) = self.lock_all();
        run.clear();
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

    pub(super) fn run(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For what also concerns messages that the reader has taken over.
    pub(super) fn lock_all(&self) -> (MutexGuard<'_, VecDeque<Queued>>, MutexGuard<'_, State>) {
        let run = self.run();
        (run, self.lock())
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
