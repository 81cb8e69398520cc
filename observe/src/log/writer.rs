//! The one thread that writes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use super::config::Output;
use super::line::Style;
use super::queue::{Lines, Shared};
use super::sink::{Sink, WriteError};
use super::value::Value;

/// How long a line may lie in a shard.
pub(super) const TICK: Duration = Duration::from_millis(100);
const TARGET: &str = "mainspring::log";

/// What the writing thread has of a [`Queue`](super::queue::Queue): its other end, and the output.
pub(super) struct Writer {
    shared: Arc<Shared>,
    sink: Sink,
    style: Arc<Style>,
    /// The last batch could not be written where it belongs.
    failing: bool,
    /// When the shards must be emptied.
    due_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, sink: Sink, style: Arc<Style>) -> Self {
        Self { shared, sink, style, failing: false, due_at: None }
    }

    /// Writes until the queue is dropped.
    pub(super) fn run(&mut self) {
        let mut batch = Lines::default();
        let mut unsaid = 0;
        while let Some(dropped) = self.next(&mut batch) {
            unsaid += dropped;
            let lines = batch.bytes.len();
            if unsaid > 0 {
                let fields = [("dropped", Value::U64(unsaid))];
                self.style.notice(&mut batch.bytes, Level::WARN, TARGET, "log lines were dropped", &fields);
            }
            let lost = match self.write(&batch.bytes, lines) {
                Ok(()) => {
                    unsaid = 0;
                    0
                }
                Err(lost) => {
                    unsaid += lost;
                    self.shared.dropped.write_error.inc_by(lost);
                    lost
                }
            };
            self.shared.tell(|state| {
                state.settled += batch.count;
                state.lost += lost;
            });
            batch.clear();
        }
        self.shared.tell(|state| state.ended = true);
    }

    /// Waits for lines and takes them. Returns how many were dropped after them; `None` at the end.
    fn next(&mut self, batch: &mut Lines) -> Option<u64> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if let Some(sink) = state.next_sink.take() {
                (self.sink, self.failing) = (sink, false);
            }
            let left = self.left_until_due();
            if left == Some(Duration::ZERO) {
                drop(state);
                self.due_at = None;
                shared.due.store(false, Ordering::Release);
                shared.gather();
                state = shared.lock();
            } else if state.pending.count > 0 || state.dropped > 0 {
                std::mem::swap(&mut state.pending, batch);
                return Some(std::mem::take(&mut state.dropped));
            } else if state.closing {
                return None;
            } else {
                state.parked = true;
                state = match left {
                    Some(left) => shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                    None => shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
                state.parked = false;
            }
        }
    }

    /// How long the shards may still wait; `None` while they are empty.
    fn left_until_due(&mut self) -> Option<Duration> {
        if !self.shared.due.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        Some(self.due_at.get_or_insert(now + TICK).saturating_duration_since(now))
    }

    /// Writes `bytes`, of which all after the first `lines` is a notice. What the output refuses goes to stderr. Fails
    /// with the number of lines that stderr refused as well.
    fn write(&mut self, bytes: &[u8], lines: usize) -> Result<(), u64> {
        let Err(WriteError { written, error }) = self.sink.write(bytes) else {
            self.failing = false;
            return Ok(());
        };
        // The line that was cut short is written again, whole.
        let whole = bytes[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut rest = Vec::new();
        if !std::mem::replace(&mut self.failing, true) {
            let fields = [("output", Value::Str(self.sink.name())), ("error", Value::Display(&error))];
            self.style.notice(
                &mut rest,
                Level::ERROR,
                TARGET,
                "the log cannot be written; its lines go to stderr until it can",
                &fields,
            );
        }
        let notice = rest.len();
        rest.extend_from_slice(&bytes[whole..]);
        let stderr = Sink::open(&Output::Stderr).map_err(|error| WriteError { written: 0, error });
        stderr.and_then(|mut stderr| stderr.write(&rest)).map_err(|failed| {
            let lost = bytes.get(whole + failed.written.saturating_sub(notice)..lines).unwrap_or_default();
            lost.iter().filter(|byte| **byte == b'\n').count() as u64
        })
    }
}
