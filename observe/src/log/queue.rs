//! The bounded queue between those who log and the one thread that writes.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use super::line::Style;
use super::sink::Sink;
use super::writer::Writer;
use crate::metrics;

/// Lines on their way to a [`Sink`].
///
/// Nobody who logs ever waits for the output: a line that finds the queue full is dropped and counted, and once
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
    pub(super) progress: Condvar,
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
mod tests {
    use super::*;
    use crate::log::line::Look;
    use crate::log::writer::TICK;
    use std::io::Write;

    /// An output that a test can hold up, and look into.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<Behind>, Condvar)>);

    #[derive(Default)]
    struct Behind {
        closed: bool,
        writers: usize,
        written: Vec<u8>,
    }

    impl Gate {
        fn closed() -> Self {
            let gate = Self::default();
            lock(&gate.0.0).closed = true;
            gate
        }

        fn open(&self) {
            lock(&self.0.0).closed = false;
            self.0.1.notify_all();
        }

        /// Waits for what a test needs to be so; fails after a time that only a fault can take.
        fn until(&self, fact: impl Fn(&Behind) -> bool) -> Vec<String> {
            let (behind, timeout) =
                self.0.1.wait_timeout_while(lock(&self.0.0), Duration::from_secs(20), |behind| !fact(behind)).unwrap();
            assert!(!timeout.timed_out(), "never so; written: {}", behind.written.escape_ascii());
            String::from_utf8(behind.written.clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut behind = lock(&self.0.0);
            behind.writers += 1;
            self.0.1.notify_all();
            behind = self.0.1.wait_while(behind, |behind| behind.closed).unwrap();
            behind.writers -= 1;
            // Short writes are the rule on pipes.
            let some = bytes.len().min(5);
            behind.written.extend_from_slice(&bytes[..some]);
            self.0.1.notify_all();
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue(gate: &Gate, capacity: usize) -> (Queue, Dropped) {
        let dropped = Dropped::default();
        let style = Arc::new(Style::new(Look::Json, None));
        (Queue::start(Sink::new("gate", gate.clone()), style, capacity, dropped.clone()).unwrap(), dropped)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn lines_that_find_the_queue_full_are_counted_one_by_one_and_summed_up_in_one_line() {
        let gate = Gate::closed();
        let (queue, dropped) = queue(&gate, 100);
        queue.push(b"the first\n");
        gate.until(|behind| behind.writers == 1);
        for line in 0..17 {
            queue.push(format!("line {line:04}\n").as_bytes());
        }
        assert_eq!(dropped.full.get(), 7);
        assert!(!queue.flush(Instant::now() + Duration::from_millis(10)), "a held up output was flushed");
        gate.open();
        assert!(queue.flush(soon()));
        queue.push(b"the last\n");
        assert!(queue.flush(soon()));

        let written = gate.until(|_| true);
        assert_eq!(
            (written[0].as_str(), written[10].as_str(), written[12].as_str()),
            ("the first", "line 0009", "the last")
        );
        assert_eq!(written.len(), 13);
        let notice: serde_json::Value = serde_json::from_str(&written[11]).unwrap();
        assert_eq!((&notice["level"], &notice["fields"]["dropped"]), (&"WARN".into(), &7.into()));
        assert_eq!((dropped.too_long.get(), dropped.write_error.get()), (0, 0));
    }

    #[test]
    fn a_line_that_could_never_fit_is_dropped_alone() {
        let gate = Gate::default();
        let (queue, dropped) = queue(&gate, 40 * 1024);
        queue.batch(b"before\n");
        queue.batch(&[b'x'; 50 * 1024]);
        queue.push(&[b'x'; 50 * 1024]);
        queue.batch(b"after\n");
        assert!(queue.flush(soon()));
        assert_eq!((dropped.too_long.get(), dropped.full.get()), (2, 0));
        let written = gate.until(|_| true);
        let lines: Vec<_> = written.iter().filter(|line| !line.contains("dropped")).collect();
        assert_eq!(lines, ["before", "after"]);
    }

    #[test]
    fn a_batched_line_comes_out_by_itself_while_the_process_idles() {
        let gate = Gate::default();
        let (queue, _) = queue(&gate, CAPACITY);
        for round in 1..=3 {
            let handed_over = Instant::now();
            queue.batch(b"access\n");
            assert_eq!(gate.until(|behind| behind.written.len() == round * 7).len(), round);
            assert!(handed_over.elapsed() >= TICK, "round {round} was not gathered with what may follow");
        }
    }

    #[test]
    fn a_stream_of_events_does_not_hold_batched_lines_back() {
        let gate = Gate::default();
        let (queue, _) = queue(&gate, CAPACITY);
        queue.batch(b"access\n");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // An event more often than the shards are due.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    queue.push(b"e\n");
                    thread::sleep(TICK / 50);
                }
            });
            gate.until(|behind| behind.written.contains(&b'a'));
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_full_batch_is_handed_over_and_nothing_is_lost_at_a_flush() {
        let gate = Gate::default();
        let (queue, dropped) = queue(&gate, 16 * CAPACITY);
        let (threads, lines) = (8, 3_000);
        thread::scope(|scope| {
            for thread in 0..threads {
                let queue = &queue;
                scope.spawn(move || {
                    for line in 0..lines {
                        queue.batch(format!("{thread} {line} {:64}\n", "").as_bytes());
                        if line % 997 == 0 {
                            assert!(queue.flush(soon()));
                        }
                    }
                });
            }
        });
        assert!(queue.flush(soon()));
        let written = gate.until(|_| true);
        assert_eq!(dropped.full.get(), 0);
        assert_eq!(written.len(), threads * lines);
        for thread in 0..threads {
            let mine = written.iter().filter_map(|line| line.strip_prefix(&format!("{thread} ")));
            assert!(
                mine.map(|line| line.trim_end().parse::<usize>().unwrap()).eq(0..lines),
                "thread {thread} is out of order"
            );
        }
    }

    #[test]
    fn a_dropped_queue_has_written_everything() {
        let gate = Gate::default();
        let (queue, _) = queue(&gate, CAPACITY);
        queue.push(b"event\n");
        queue.batch(b"access\n");
        drop(queue);
        assert_eq!(gate.until(|_| true), ["event", "access"]);
    }

    #[test]
    fn a_replaced_output_gets_what_comes_after() {
        let (first, second) = (Gate::default(), Gate::default());
        let (queue, _) = queue(&first, CAPACITY);
        queue.push(b"one\n");
        assert!(queue.flush(soon()));
        queue.replace(Sink::new("second", second.clone()));
        queue.push(b"two\n");
        assert!(queue.flush(soon()));
        assert_eq!((first.until(|_| true), second.until(|_| true)), (vec!["one".to_owned()], vec!["two".to_owned()]));
    }
}
