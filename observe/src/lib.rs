//! What the server and pub/sub report through: logs, metrics, trace context.
//!
//! - [`log`]: one line an event, whatever the strings in it contain, through a bounded writer that never
//!   blocks the caller and counts what it drops.
//! - [`metrics`]: registries of prometheus-client as values, and the process-wide one.
//! - [`trace`]: W3C `traceparent`, read and continued.
//! - [`correlation`]: which trace and request the code that runs now works for. Log lines carry it.
//! - [`panics`]: a panic is one log line, written at once.
//! - [`profile`]: CPU and heap profiles, as `go tool pprof` reads them.
//!
//! Four things are process-wide, because the process has only one of each: the log subscriber
//! ([`log::init`]), the panic hook ([`panics::install`]), the metrics registries ([`metrics`]) and the profiler
//! ([`profile::cpu`]). Everything
//! else is a value. Nothing here serves HTTP: the admin listener shows what this crate collects.

pub mod correlation;
mod identity;
pub mod log;
pub mod metrics;
pub mod panics;
pub mod profile;
mod proto;
pub mod trace;

pub use identity::Identity;
