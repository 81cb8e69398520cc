//! The bounded queue between those who log and the one thread that writes.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use super::line::Style;
use super::sink::Sink;
use super::writer::Writer;
use crate::metrics;

/// Lines on their way to a [`Sink`].
///
/// Nobody who logs ever waits for the output, unless they ask to ([`written`](Self::written)): a line that finds the queue full is dropped and counted, and once
/// there is room again one line says how many were. Lines come out in the order in which they were pushed; batched
/// ones in the order of their thread.
///
/// Two ways in: [`push`](Self::push) has the line written at once, for events. [`batch`](Self::batch) gathers up to
/// 32 KiB in one of a few shards, so that threads that serve requests do not meet at one lock, and has it written
/// within 100 ms, for access lines. A shard is emptied by whoever fills it up, by the writing thread when the
/// oldest line is due, and by [`flush`](Self::flush).
pub(super) struct Queue {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What the two ends of a queue have in common.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The writer waits on it for something to do.
    pub(super) work: Condvar,
    /// Those who flush wait on it.
    progress: Condvar,
    capacity: usize,
    shards: Box<[Mutex<Lines>]>,
    /// Set from the first line in a shard until the writer begins to empty them.
    pub(super) due: AtomicBool,
    pub(super) dropped: Dropped,
}

/// How many lines were dropped, by reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Dropped {
    /// The output did not keep up.
    pub(super) full: Counter,
    /// The line alone is more than the queue may hold.
    pub(super) too_long: Counter,
    /// Neither the output nor stderr took it.
    pub(super) write_error: Counter,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) pending: Lines,
    /// Dropped since the last line that said so.
    pub(super) dropped: u64,
    /// Lines that came in, and lines that were written or given up. Both only grow.
    pub(super) accepted: u64,
    pub(super) settled: u64,
    /// Lines that came and will never be written. It only grows.
    pub(super) lost: u64,
    /// Those who wait for lines to be written, at most one entry for each task.
    pub(super) waiting: Vec<Waker>,
    pub(super) next_sink: Option<Sink>,
    /// The writer sleeps and must be woken.
    pub(super) parked: bool,
    pub(super) closing: bool,
    pub(super) ended: bool,
}

/// Whole lines, one after the other.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

/// How much may wait: some four thousand lines.
pub(super) const CAPACITY: usize = 1024 * 1024;
/// When a shard is handed over.
const BATCH: usize = 32 * 1024;
/// How long dropping a queue waits for its writer.
const GRACE: Duration = Duration::from_secs(1);

impl Queue {
    /// Starts the thread that writes to `sink`. At most `capacity` bytes wait for it, not counting the batch that it
    /// is writing and 32 KiB for each shard.
    pub(super) fn start(sink: Sink, style: Arc<Style>, capacity: usize, dropped: Dropped) -> io::Result<Self> {
        let shards = thread::available_parallelism().map_or(1, usize::from).min(16);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
            capacity,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            due: AtomicBool::new(false),
            dropped,
        });
        let mut writer = Writer::new(Arc::clone(&shared), sink, style);
        let writer = thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Hands over one line, which ends in a newline, to be written at once.
    pub(super) fn push(&self, line: &[u8]) {
        self.shared.accept(line.len(), 1, |pending| pending.push(line, 1));
    }

    /// Hands over one line, which ends in a newline, to be written within 100 ms.
    pub(super) fn batch(&self, line: &[u8]) {
        let shared = &self.shared;
        let mut shard = lock(&shared.shards[shard_of_thread() % shared.shards.len()]);
        // Before and not after: a line that is too long even for the queue then takes no others with it.
        if line.len() + shard.bytes.len() > BATCH {
            shared.hand_over(&mut shard);
        }
        shard.push(line, 1);
        drop(shard);
        // The writer takes `due` back before it empties the shards, so a line that it misses finds it unset.
        if !shared.due.load(Ordering::Acquire) && !shared.due.swap(true, Ordering::AcqRel) {
            shared.wake(&mut shared.lock());
        }
    }

    /// Waits until every line that was handed over before is written or given up. `false` if `deadline` passes first.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        self.shared.gather();
        let state = self.shared.lock();
        let wanted = state.accepted;
        self.shared.wait_for(state, deadline, |state| state.settled >= wanted)
    }

    /// Waits until every line that `push` has pushed, and all before, are written or given up. Answers whether no line was
    /// lost meanwhile. Cancel-safe.
    pub(super) async fn written(&self, push: impl FnOnce()) -> bool {
        let lost = self.shared.lock().lost;
        push();
        let wanted = self.shared.lock().accepted;
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if state.settled >= wanted || state.ended {
                return Poll::Ready(state.settled >= wanted && state.lost == lost);
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Writes everything that has not been written yet to `sink` instead.
    pub(super) fn replace(&self, sink: Sink) {
        let mut state = self.shared.lock();
        state.next_sink = Some(sink);
        self.shared.wake(&mut state);
    }
}

impl Dropped {
    /// The counts that `log_dropped_total` shows.
    pub(super) fn process_wide() -> Self {
        let count = metrics::log_dropped;
        Self { full: count("queue_full"), too_long: count("too_long"), write_error: count("write_error") }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.gather();
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.wake(&mut state);
        let ended = self.shared.wait_for(state, Instant::now() + GRACE, |state| state.ended);
        // A writer whose output is stuck is left behind: nobody can end it, and it holds nothing but the output.
        if let (true, Some(writer)) = (ended, self.writer.take()) {
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Queue")
            .field("accepted", &state.accepted)
            .field("settled", &state.settled)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes in `count` lines of `length` bytes, which `add` adds to those that wait, or drops them all.
    fn accept(&self, length: usize, count: u64, add: impl FnOnce(&mut Lines)) {
        let mut state = self.lock();
        if state.pending.bytes.len() + length > self.capacity {
            state.dropped += count;
            state.lost += count;
            drop(state);
            let Dropped { full, too_long, .. } = &self.dropped;
            if length > self.capacity { too_long } else { full }.inc_by(count);
            return;
        }
        add(&mut state.pending);
        state.accepted += count;
        self.wake(&mut state);
    }

    /// Empties a shard. Its lock is held until the lines are in the queue, so that a flush that finds it empty can
    /// rely on them.
    fn hand_over(&self, shard: &mut Lines) {
        if shard.count > 0 {
            self.accept(shard.bytes.len(), shard.count, |pending| pending.append(shard));
            shard.clear();
        }
    }

    /// Empties all shards.
    pub(super) fn gather(&self) {
        for shard in &self.shards {
            self.hand_over(&mut lock(shard));
        }
    }

    /// Wakes the writer, if it sleeps: a notification is a system call even when nobody waits.
    fn wake(&self, state: &mut State) {
        if std::mem::take(&mut state.parked) {
            self.work.notify_one();
        }
    }

    /// Changes the state, and has everybody look at it who waits for that.
    pub(super) fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.progress.notify_all();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn wait_for(&self, mut state: MutexGuard<'_, State>, deadline: Instant, done: impl Fn(&State) -> bool) -> bool {
        while !done(&state) && !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        done(&state)
    }
}

impl Lines {
    fn push(&mut self, bytes: &[u8], count: u64) {
        self.bytes.extend_from_slice(bytes);
        self.count += count;
    }

    /// Takes over what is in `other`: its memory too, where there is nothing yet.
    fn append(&mut self, other: &mut Self) {
        if self.count == 0 {
            std::mem::swap(self, other);
        } else {
            self.push(&other.bytes, other.count);
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.bytes.shrink_to(2 * BATCH);
    }
}

/// Threads are dealt to the shards in turn.
fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    MINE.try_with(|mine| *mine).unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of others runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
