//! A server that runs, and how it stops.
//!
//! `stop` below is what happens on SIGTERM, in order.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mainspring_daemon::{Board, Chain};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::control::Control;
use crate::error::EX_TEMPFAIL;
use crate::http::Dispatch;
use crate::lifecycle::{Lifecycle, Phase};
use crate::pollers::Pollers;
use crate::report::{GivenUp, StopReport, Witness};
use crate::serve::Acceptor;
use crate::supervisor::{Death, Supervisor};
use crate::{Error, Result};

/// A running server, from the inside.
pub(crate) struct Running {
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) admin: axum::Router,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) supervisor: Supervisor,
    pub(crate) control: Option<Control>,
    pub(crate) housekeeping: JoinSet<()>,
    pub(crate) witness: Witness,
    pub(crate) budget: Duration,
    pub(crate) lame_duck: Duration,
    pub(crate) pollers: Option<Pollers>,
}

/// Why a server stops.
#[derive(Debug)]
pub(crate) enum Cause {
    Requested(String),
    Died(Death),
}

/// The part of the budget that is kept for flushing: a tenth, at most one second.
const FLUSH_SHARE: u32 = 10;
const LONGEST_FLUSH_RESERVE: Duration = Duration::from_secs(1);
/// How long daemons have to put down what they hold, once the time for finishing it is over.
const LAST_MOMENT: Duration = Duration::from_millis(50);

impl Running {
    /// Serves until a stop is requested or a critical daemon dies.
    pub(crate) async fn serve(&mut self, requested: impl Future<Output = String>) -> Cause {
        let ready = become_ready(&self.witness.lifecycle, &self.witness.board);
        tokio::select! {
            biased;
            death = self.supervisor.death() => Cause::Died(death),
            cause = requested => Cause::Requested(cause),
            () = accept(&mut self.acceptor) => unreachable!("accepting has no end"),
            () = ready => unreachable!("readiness is waited for once, then for ever"),
        }
    }

    /// Stops in order: unready, lame duck, stop accepting and pulling, finish, flush. Never takes longer than the
    /// budget; what is left by then is given up and named.
    pub(crate) async fn stop(mut self, cause: Cause) -> (Cause, StopReport) {
        let end = Instant::now() + self.budget;
        let lifecycle = self.witness.lifecycle.clone();
        if let Some(control) = &self.control {
            control.arm();
        }
        // 1. Health says no; clients of HTTP/1 are told to connect elsewhere; everything is still served.
        self.dispatch.leave();
        lifecycle.enter(Phase::LameDuck);
        if !self.lame_duck.is_zero() {
            let told = async {
                match &self.pollers {
                    Some(pollers) => pollers.all_told().await,
                    None => std::future::pending().await,
                }
            };
            let told_or_accepting = async {
                tokio::select! {
                    () = told => {}
                    () = accept(&mut self.acceptor) => {}
                }
            };
            let _ = tokio::time::timeout(self.lame_duck, told_or_accepting).await;
        }
        // 2. Nothing new: the accept queue is emptied and closed, daemons stop pulling, streams end.
        lifecycle.enter(Phase::Draining);
        let reserve = (self.budget / FLUSH_SHARE).min(LONGEST_FLUSH_RESERVE);
        let drained_by = end - reserve;
        if let Some(acceptor) = &mut self.acceptor {
            acceptor.stop_accepting();
        }
        self.supervisor.stop(drained_by);
        // 3. What was begun is finished: requests first, as they may still make work for daemons in this process.
        let finish = async {
            drain(&mut self.acceptor, &self.dispatch, drained_by).await;
            self.supervisor.requests_finished();
            self.supervisor.ended().await;
        };
        let finished = tokio::time::timeout_at(drained_by, finish).await.is_ok();
        // A daemon that put its work down at the deadline has ended, but not in time.
        let in_time = finished && Instant::now() < drained_by;
        let mut given_up = GivenUp::default();
        if !in_time {
            self.dispatch.abort();
            if let Some(acceptor) = &mut self.acceptor {
                given_up.connections = acceptor.abort().await;
                // Streams of HTTP/2 are tasks of their own, which end a little later than their connection.
                let _ = tokio::time::timeout(LAST_MOMENT, answered(&self.dispatch)).await;
            }
            // Daemons see the deadline too, and return what they hold; those that do not are dropped.
            self.supervisor.requests_finished();
            let _ = tokio::time::timeout(LAST_MOMENT, self.supervisor.ended()).await;
            self.supervisor.abort().await;
            given_up.daemons = self.supervisor.roll().names();
        }
        // 4. Publishers come last: handlers may have published until now.
        lifecycle.enter(Phase::Flushing);
        given_up.unflushed = flush(&self.witness.board, end).await;
        lifecycle.enter(Phase::Stopped);
        self.housekeeping.shutdown().await;
        let forced = !in_time || !given_up.unflushed.is_empty();
        let report = self.witness.report(cause.to_string(), forced, given_up);
        report.log();
        // 5. The admin listener answers to the very end.
        if let Some(control) = self.control.take() {
            control.stop();
        }
        (cause, report)
    }
}

/// The exit code that a report amounts to.
pub(crate) fn into_result((cause, report): (Cause, StopReport)) -> Result {
    match cause {
        Cause::Died(death) => {
            Err(Error::with_code(death.failure.code, format!("daemon {}: {}", death.name, death.failure.why)))
        }
        Cause::Requested(_) if report.forced => Err(Error::with_code(
            EX_TEMPFAIL,
            "not everything could be finished; the stop report names what was given up",
        )),
        Cause::Requested(_) => Ok(()),
    }
}

/// Enters `Ready` as soon as nobody holds it back, then waits for ever.
async fn become_ready(lifecycle: &Lifecycle, board: &Board) {
    while !board.unready().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lifecycle.enter(Phase::Ready);
    std::future::pending().await
}

async fn accept(acceptor: &mut Option<Acceptor>) {
    match acceptor {
        Some(acceptor) => acceptor.accept().await,
        None => std::future::pending().await,
    }
}

/// Waits for connections, and for requests that were made in this process.
async fn drain(acceptor: &mut Option<Acceptor>, dispatch: &Dispatch, by: Instant) {
    if let Some(acceptor) = acceptor {
        acceptor.drain(by).await;
    }
    answered(dispatch).await;
}

/// Waits until no request is in progress.
async fn answered(dispatch: &Dispatch) {
    while dispatch.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs all flushes at the same time, until `end`. Names those that failed or were late.
async fn flush(board: &Board, end: Instant) -> Vec<String> {
    let mut flushes: Vec<_> =
        board.take_flushes().into_iter().map(|flush| (Arc::clone(&flush.name), Some(Box::pin(flush.run())))).collect();
    let mut failed = Vec::new();
    let all = poll_fn(|cx| {
        for (name, flush) in &mut flushes {
            let Some(running) = flush else { continue };
            if let Poll::Ready(result) = running.as_mut().poll(cx) {
                *flush = None;
                if let Err(error) = result {
                    failed.push(format!("{name}: {}", Chain(&*error)));
                }
            }
        }
        if flushes.iter().all(|(_, flush)| flush.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    });
    if tokio::time::timeout_at(end, all).await.is_err() {
        let late = flushes.iter().filter(|(_, flush)| flush.is_some());
        failed.extend(late.map(|(name, _)| format!("{name}: not flushed in time")));
    }
    failed
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Requested(why) => f.write_str(why),
            Self::Died(death) => write!(f, "daemon {} failed: {}", death.name, death.failure.why),
        }
    }
}
