//! Logs: one line an event, through a queue that never makes the caller wait.
//!
//! [`init`] installs the process's log once. Events come from `tracing` (and from the `log` crate), each becomes one
//! line in the [schema](#schema) whatever its strings contain, and a thread of its own writes it. When the output does
//! not keep up, lines are dropped, counted in `log_dropped_total{reason}`, and summed up in a line when it does again.
//! Who cannot do without a line waits for it: [`record`].
//!
//! # Schema
//!
//! A JSON line has `ts` (RFC 3339, UTC, microseconds), `level`, `target`, `msg`, `service`, `version`; `trace_id`,
//! `span_id` and `request_id` where the [correlation](crate::correlation) knows them; and `fields`, an object with the
//! event's fields and those of the spans around it. Where two have one name, the innermost is shown.
//!
//! Filters name levels and targets, as in `info,orders=debug`; see [`Config::filter`]. [`Handle`] changes the filter
//! and reopens files while the process runs.

mod access;
mod clock;
mod combined;
mod config;
mod filter;
mod layer;
mod limit;
mod line;
mod pipeline;
mod queue;
mod redact;
mod sink;
mod text;
mod value;
mod writer;

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::{Identity, metrics};
use pipeline::Pipeline;

pub use access::LineWriter;
pub use combined::Combined;
pub use config::{Access, AccessFormat, Config, Format, Output};
pub use filter::FilterError;
pub use line::Fields;
pub use value::Value;

pub(crate) use line::Style;

/// Keeps the log. Dropping it flushes, for at most a second; events after that are still written, but nobody waits
/// for them.
#[derive(Debug)]
pub struct Guard(Handle);

/// Changes the log while the process runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Pipeline>);

/// Why the log could not be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `log.filter` cannot be read.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// An output cannot be opened.
    #[error("{key} {output:?} cannot be opened: {source}; its directory must exist and be writable")]
    Open {
        /// `log.output` or `log.access`.
        key: &'static str,
        /// What was to be opened.
        output: String,
        /// Why it could not be.
        source: io::Error,
    },
    /// The thread that writes cannot be started.
    #[error("the thread that writes the log cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// Something else is this process's log already.
    #[error("another tracing subscriber is installed in this process; install none, mainspring does")]
    Installed,
}

/// What was to be [recorded](record) may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log could not be written")]
pub struct Unwritten;

static LOG: OnceLock<Handle> = OnceLock::new();

/// Installs the log of this process.
///
/// The first call counts: a later one changes nothing and returns a guard for the same log, so that tests which share
/// a process can each call it. Also shows `build_info` in the process-wide metrics.
pub fn init(config: &Config, identity: &Identity) -> Result<Guard, Error> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = LOG.get() {
        return Ok(Guard(handle.clone()));
    }
    let (subscriber, pipeline) = Pipeline::build(config, identity)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Installed)?;
    // A program that has a logger for the `log` crate already keeps it.
    let _ = tracing_log::LogTracer::init();
    pipeline::follow_with_log_crate();
    metrics::build_info(identity);
    Ok(Guard(LOG.get_or_init(|| Handle(Arc::new(pipeline))).clone()))
}

/// The installed log; `None` before [`init`].
pub fn handle() -> Option<Handle> {
    LOG.get().cloned()
}

/// The access log's writer; `None` before [`init`], and while `log.access` is `off`.
pub fn writer() -> Option<LineWriter> {
    LOG.get()?.0.access().cloned()
}

/// Waits as [`Guard::flush`] does; at once `true` before [`init`].
pub fn flush(deadline: Duration) -> bool {
    LOG.get().is_none_or(|handle| handle.flush(deadline))
}

/// Logs by `event`, and waits until what that logged is written: for what has to be on record before something else
/// happens. A handler that records what it did has its message acked after the line is out.
///
/// ```
/// # async fn f(id: u32) -> Result<(), mainspring_observe::log::Unwritten> {
/// use mainspring_observe::log;
///
/// log::record(|| tracing::info!(id, "shipped")).await
/// # }
/// ```
///
/// Fails when lines were lost meanwhile, for the output failed or others had filled the queue: this one may be among them,
/// or not. Those who wait have few lines at a time, so that they fill no queue. There is no deadline but the caller's: an
/// output that nobody reads holds up those who wait. Dropping the future leaves the line where it is. Before [`init`], and
/// where the filter hides the event, there is nothing to wait for.
pub async fn record(event: impl FnOnce()) -> Result<(), Unwritten> {
    match LOG.get() {
        Some(handle) => handle.0.written(event).await.then_some(()).ok_or(Unwritten),
        None => {
            event();
            Ok(())
        }
    }
}

/// How lines on stderr should look: as configured, or by stderr itself before [`init`].
pub(crate) fn style_of_stderr() -> Style {
    match LOG.get() {
        Some(handle) => handle.0.style_of_stderr(),
        None => Style::new(pipeline::look(Format::Auto, &Output::Stderr), None),
    }
}

impl Guard {
    /// A handle to the log.
    pub fn handle(&self) -> Handle {
        self.0.clone()
    }

    /// Waits until every line that was logged before is written, access lines included, for at most `deadline`.
    /// `false` if that was not enough: the output does not keep up.
    ///
    /// Blocks the thread; in async code call it from `spawn_blocking`, or last.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.0.flush(deadline)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flush(Duration::from_secs(1));
    }
}

impl Handle {
    /// The filter in force.
    pub fn filter(&self) -> String {
        self.0.filter()
    }

    /// Puts another filter into force, for events from now on. One that cannot be read changes nothing.
    pub fn set_filter(&self, filter: &str) -> Result<(), FilterError> {
        self.0.set_filter(filter)?;
        pipeline::follow_with_log_crate();
        Ok(())
    }

    /// Opens the files again, after they were renamed or removed. Standard output and error stay as they are.
    ///
    /// A file that cannot be opened is one error in the log, and its lines go to stderr until a later call succeeds. The
    /// first such error is returned too; it needs no further report.
    pub fn reopen(&self) -> io::Result<()> {
        self.0.reopen()
    }

    /// Waits as [`Guard::flush`] does.
    pub fn flush(&self, deadline: Duration) -> bool {
        // No process waits for longer than a day, and some durations do not fit the clock.
        self.0.flush(Instant::now() + deadline.min(Duration::from_secs(86_400)))
    }
}
