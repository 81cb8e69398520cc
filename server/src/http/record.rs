//! What is remembered of a request, and settled exactly once: when its response has ended, or when it is dropped.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri, Version};
use mainspring_observe::correlation::Correlation;
use tokio::time::Instant;

use super::dispatch::{Aborted, Dispatch};
use super::request_body::Intake;
use super::routes::Route;
use crate::serve::Conn;

/// One request's record. It travels with the request, through its future and its response's body, and whoever drops
/// it last settles it: so a client that leaves, a panic and an abort are counted like an answer.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) conn: Option<Arc<Conn>>,
    pub(super) route: usize,
    pub(super) method: usize,
    pub(super) started: Instant,
    pub(super) correlation: Correlation,
    pub(super) status: u16,
    pub(super) outcome: Option<Outcome>,
    pub(super) bytes_out: u64,
    /// Shared with the request's body; absent when there is none.
    pub(super) intake: Option<Arc<Intake>>,
    /// Only kept when there is an access log.
    pub(super) line: Option<Line>,
}

/// What only the access log wants to know.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) user_agent: Option<HeaderValue>,
    /// Only kept when the format shows it.
    pub(super) referer: Option<HeaderValue>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered to the end, with a status below 500.
    Ok,
    /// Answered with a status of 500 or above, or broken off by a body that failed.
    Error,
    /// Not answered within its timeout.
    Timeout,
    /// Given up by the client, or by us at the end of a shutdown.
    Cancelled,
    /// The handler, or a streaming body, panicked.
    Panic,
}

/// What metrics and logs show for a client that left before the answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Record {
    pub(super) fn route(&self) -> &Route {
        self.dispatch.routes.get(self.route)
    }

    /// How long the request has been in progress.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The response's end was reached.
    pub(super) fn complete(&mut self) {
        if self.outcome.is_none() {
            self.outcome = Some(if self.status >= 500 { Outcome::Error } else { Outcome::Ok });
        }
    }

    pub(super) fn bytes_in(&self) -> u64 {
        self.intake.as_ref().map_or(0, |intake| intake.bytes())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(conn) = &self.conn {
            conn.request_ended();
        }
        let age = self.age();
        let finished = self.outcome.is_some();
        let outcome = self.outcome.unwrap_or(Outcome::Cancelled);
        if self.status == 0 {
            self.status = CLIENT_CLOSED_REQUEST;
        }
        let cut_off = self.dispatch.exit(finished, || Aborted {
            peer: self.conn.as_ref().map(|conn| conn.peer),
            route: Arc::clone(&self.route().template),
            age,
        });
        let trace = self.correlation.trace.as_ref();
        self.dispatch.metrics().observe(&self.route().metrics, self.method, self.status, age.as_secs_f64(), trace);
        if cut_off {
            tracing::warn!(route = &*self.route().template, "request cut off at the shutdown deadline");
        }
        if let (Some(access), Some(line)) = (&self.dispatch.access, &self.line) {
            access.write(self, line, outcome, age);
        }
    }
}

impl Outcome {
    /// The word that logs use.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Panic => "panic",
        }
    }
}
