//! The access log's way out.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use tracing::Level;

use super::combined::Combined;
use super::line::{Fields, Style};
use super::queue::Queue;
use crate::correlation::Correlation;

/// Writes access lines, without tracing in between. Cheap to clone.
///
/// A line is put together in memory that its thread keeps, so that a line costs no allocation, and is on its way to
/// the output within 100 ms. No method ever waits for the output: what does not fit is dropped and counted in
/// `log_dropped_total`. [`Guard::flush`](super::Guard::flush) leaves no line behind.
#[derive(Clone)]
pub struct LineWriter {
    queue: Arc<Queue>,
    style: Arc<Style>,
}

thread_local! {
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A line longer than this gives its memory back.
const KEPT: usize = 16 * 1024;

impl LineWriter {
    /// Lines for `queue`; `style` must be JSON.
    pub(super) fn new(queue: Arc<Queue>, style: Arc<Style>) -> Self {
        Self { queue, style }
    }

    /// Writes one event of target `access` in the log's JSON schema: `message`, the ids of `correlation`, and `fields`.
    pub fn write(&self, level: Level, message: &str, correlation: &Correlation, fields: impl FnOnce(&mut Fields<'_>)) {
        self.with_line(|line| {
            let ids = |ids: &mut Fields<'_>| ids.put_correlation(correlation);
            self.style.write(line, level, "access", |text| text.push(message), ids, fields);
        });
    }

    /// Writes a line that `fill` appends, in whatever format, without its newline. A newline inside becomes a space; a
    /// line that stays empty is not written. If `fill` panics, nothing is.
    pub fn write_line(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.with_line(|line| {
            fill(line);
            line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
            if !line.is_empty() {
                line.push(b'\n');
            }
        });
    }

    /// Writes one request in Apache's format.
    pub fn write_combined(&self, request: &Combined<'_>) {
        self.write_line(|line| request.put(line));
    }

    fn with_line(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        // Taken, not borrowed: what fills a line may write another.
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        fill(&mut line);
        if !line.is_empty() {
            self.queue.batch(&line);
        }
        line.clear();
        if line.capacity() <= KEPT {
            let _ = LINE.try_with(|kept| kept.set(line));
        }
    }
}

impl fmt::Debug for LineWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LineWriter").field(&self.queue).finish()
    }
}
