//! One daemon, from its first start to its end.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use mainspring_daemon::{BoxError, BoxFuture, Context};
use mainspring_observe::panics;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::Policy;
use crate::Error;
use crate::error::{EX_CONFIG, EX_SOFTWARE};

/// A named background task.
pub(crate) struct Daemon {
    pub(crate) name: &'static str,
    pub(crate) policy: Policy,
    pub(crate) start: Start,
}

/// How a daemon's future is made: once, or as often as it is restarted.
pub(crate) enum Start {
    Once(Box<dyn FnOnce(Context) -> Run + Send>),
    Again(Again),
}

/// Why a daemon failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) why: String,
    /// What the process exits with when it cannot do without the daemon.
    pub(crate) code: u8,
}

pub(crate) type Run = BoxFuture<Result<(), BoxError>>;
pub(crate) type Again = Box<dyn Fn(Context) -> Run + Send + Sync>;

/// A critical daemon may fail this often ...
const FAILURES: usize = 5;
/// ... within this time, before it counts as dead. A daemon that ran as long starts over with the shortest pause.
const WITHIN: Duration = Duration::from_secs(300);

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("name", &self.name).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        let error = Error::from(error);
        let code = if error.code() == EX_CONFIG { EX_CONFIG } else { EX_SOFTWARE };
        Self { why: error.to_string(), code }
    }
}

/// Calls a daemon's function; a panic in it becomes a future that fails.
pub(super) fn begin(start: impl FnOnce() -> Run) -> Run {
    match std::panic::catch_unwind(AssertUnwindSafe(start)) {
        Ok(run) => run,
        Err(panic) => Box::pin(std::future::ready(Err(died_of(&*panic).into()))),
    }
}

/// Runs a daemon to its end. Answers why it failed, if it did.
pub(super) async fn supervise(
    name: &'static str,
    policy: Policy,
    first: Run,
    again: Option<Again>,
    cx: Context,
    up: &Gauge,
) -> Option<Failure> {
    let mut run = first;
    let mut failures: Vec<Instant> = Vec::new();
    let mut pauses = None;
    loop {
        let began = Instant::now();
        up.set(1);
        let result = match AssertUnwindSafe(run).catch_unwind().await {
            Ok(result) => result.map_err(Failure::from),
            Err(panic) => Err(Failure { why: died_of(&*panic), code: EX_SOFTWARE }),
        };
        up.set(0);
        let Err(failure) = result else {
            tracing::info!(daemon = name, "daemon finished");
            return None;
        };
        let why = &*failure.why;
        // What is wrong with the configuration does not pass by itself.
        let (Some(restart), Some(again), true) = (policy.restart, &again, failure.code != EX_CONFIG) else {
            tracing::error!(daemon = name, error = why, critical = policy.critical, "daemon failed");
            return Some(failure);
        };
        if cx.shutdown().is_requested() {
            tracing::error!(daemon = name, error = why, "daemon failed while stopping");
            return Some(failure);
        }
        failures.retain(|failure| failure.elapsed() < WITHIN);
        failures.push(Instant::now());
        if policy.critical && failures.len() >= FAILURES {
            tracing::error!(daemon = name, error = why, failures = failures.len(), "daemon failed too often");
            return Some(failure);
        }
        if began.elapsed() >= WITHIN {
            pauses = None;
        }
        let pause = pauses.get_or_insert_with(|| restart.pauses()).next().unwrap_or(restart.longest);
        tracing::error!(
            daemon = name,
            error = why,
            restart_in_ms = pause.as_millis() as u64,
            "daemon failed; restarting"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cx.shutdown().requested() => return None,
        }
        run = begin(|| again(cx.clone()));
    }
}

fn died_of(panic: &(dyn Any + Send)) -> String {
    panics::count("daemon");
    format!("panicked: {}", panics::message(panic))
}
