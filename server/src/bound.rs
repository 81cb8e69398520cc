//! A server whose sockets are taken: it runs, and it stops.
//!
//! `stop` below is what happens on SIGTERM, in order.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mainspring_daemon::Board;
use mainspring_observe::{Identity, log};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::{self, Heartbeat, RuntimeMetrics};
use crate::app::Launched;
use crate::config::HealthKind;
use crate::control::{Control, Setup};
use crate::error::{EX_SOFTWARE, EX_TEMPFAIL, EX_UNAVAILABLE};
use crate::http::{AccessLog, Dispatch, Routes, Settings};
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::ServerMetrics;
use crate::pollers::Pollers;
use crate::report::{GivenUp, StopReport, Witness};
use crate::serve::{Acceptor, Connections, Limits};
use crate::supervisor::{Daemon, Death, Supervisor};
use crate::{Config, Error, Result};

/// A server that holds its listening sockets and has served nothing yet. Dropping it frees them.
pub struct Bound {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) launched: Option<Arc<Launched>>,
    pub(crate) router: axum::Router,
    pub(crate) routes: Routes,
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) board: Arc<Board>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) pollers: Option<Pollers>,
    /// Absent in a test without ports.
    pub(crate) listeners: Option<Listeners>,
    pub(crate) log: Option<log::Handle>,
}

/// The sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) http: TcpListener,
    pub(crate) admin: Option<TcpListener>,
}

/// A running server, from the inside.
pub(crate) struct Running {
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) admin: axum::Router,
    acceptor: Option<Acceptor>,
    supervisor: Supervisor,
    control: Option<Control>,
    housekeeping: JoinSet<()>,
    witness: Witness,
    budget: Duration,
    lame_duck: Duration,
    pollers: Option<Pollers>,
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

impl Bound {
    /// Where the public listener is. With port 0 configured, this is the port that was given.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.listeners.as_ref().and_then(|listeners| listeners.http.local_addr().ok())
    }

    /// Where the admin listener is; `None` when it is off.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.listeners.as_ref()?.admin.as_ref()?.local_addr().ok()
    }

    /// Serves until `shutdown` resolves, then stops in order.
    ///
    /// `Ok` means a clean end: everything accepted was answered, every daemon ended. Otherwise the error's code is 70
    /// when a critical daemon died, 75 when the budget ran out and something was given up. Dropping the future ends
    /// everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result {
        let requested = async {
            shutdown.await;
            "requested".to_owned()
        };
        let mut running = self.start(false)?;
        let cause = running.serve(requested).await;
        into_result(running.stop(cause).await)
    }

    /// The same, with signals for a shutdown.
    pub(crate) async fn run_until_signal(mut self, log: log::Handle) -> Result {
        self.log = Some(log);
        let mut running = self.start(true)?;
        let signal = running.control.as_ref().map(Control::signal);
        let cause = running
            .serve(async {
                match signal {
                    Some(signal) => signal.await,
                    None => std::future::pending().await,
                }
            })
            .await;
        into_result(running.stop(cause).await)
    }

    /// Starts everything; nothing is accepted before `serve` is polled.
    pub(crate) fn start(self, signals: bool) -> Result<Running> {
        let metrics = Arc::new(ServerMetrics::new());
        let mut supervisor = Supervisor::new(Arc::clone(&self.board), Arc::clone(&metrics));
        let http = &self.config.http;
        let settings = Settings {
            max_in_flight: i64::from(http.max_in_flight),
            max_body: http.max_body.get(),
            body_timeout: http.body_timeout.get(),
        };
        let limits = Limits {
            max_connections: http.max_connections as usize,
            max_header_bytes: usize::try_from(http.max_header_bytes.get()).unwrap_or(usize::MAX),
            first_byte_timeout: http.first_byte_timeout.get(),
            header_timeout: http.header_timeout.get(),
            idle_timeout: http.idle_timeout.get(),
            last_call: self.config.shutdown.last_call.get(),
        };
        let access = AccessLog::open(&self.config.log);
        let dispatch = Dispatch::new(
            self.router,
            self.routes,
            settings,
            access,
            Arc::clone(&metrics),
            supervisor.shutdown().clone(),
        );
        // `run` without signals, too, may run in a process that has our log.
        let log = self.log.or_else(log::handle);
        let heartbeat = Heartbeat::default();
        let admin = admin::router(admin::State {
            identity: self.identity.clone(),
            lifecycle: self.lifecycle.clone(),
            board: Arc::clone(&self.board),
            metrics: Arc::clone(&metrics),
            dispatch: Arc::clone(&dispatch),
            heartbeat: heartbeat.clone(),
            log: log.clone(),
            config: match &self.launched {
                Some(launched) => launched.printed.clone(),
                None => serde_json::to_string_pretty(&self.config).unwrap_or_default(),
            },
            metrics_path: self.config.metrics.path.clone(),
            token: self.config.admin.token.clone(),
            pprof: self.config.pprof.enabled,
            tasks: supervisor.list().clone(),
            revert: Arc::default(),
        });
        let (mut http_addr, mut admin_addr) = (None, None);
        let budget = self.config.shutdown.budget.get();
        let connections = self.listeners.is_some().then(|| Connections::new(limits, Arc::clone(&metrics)));
        let witness = Witness {
            dispatch: Arc::clone(&dispatch),
            connections: connections.clone(),
            roll: supervisor.roll().clone(),
            lifecycle: self.lifecycle.clone(),
            board: Arc::clone(&self.board),
        };
        let (acceptor, control) = match self.listeners.zip(connections) {
            None => (None, None),
            Some((listeners, connections)) => {
                http_addr = listeners.http.local_addr().ok();
                admin_addr = listeners.admin.as_ref().and_then(|admin| admin.local_addr().ok());
                let acceptor = Acceptor::new(listeners.http, connections, Arc::clone(&dispatch))
                    .map_err(|error| Error::with_code(EX_UNAVAILABLE, error))?;
                let setup = Setup {
                    admin: listeners.admin,
                    router: admin.clone(),
                    signals,
                    budget,
                    log,
                    launched: self.launched,
                    witness: witness.clone(),
                };
                let control = Control::start(setup).map_err(|error| Error::with_code(EX_UNAVAILABLE, error))?;
                (Some(acceptor), Some(control))
            }
        };
        let mut housekeeping = JoinSet::new();
        let beat = supervisor.list().track("heartbeat", {
            let metrics = Arc::clone(&metrics);
            async move { heartbeat.beat(&metrics.loop_lag).await }
        });
        metrics.registry.register_collector(RuntimeMetrics::current());
        housekeeping.spawn(beat);
        if self.config.pprof.enabled {
            // Without jemalloc there is nothing to begin, and the page says so.
            let _ = mainspring_observe::profile::heap::activate();
        }
        tracing::info!(
            http = http_addr.map(tracing::field::display),
            admin = admin_addr.map(tracing::field::display),
            routes = dispatch.routes().templates().count(),
            daemons = self.daemons.len(),
            "listening"
        );
        for daemon in self.daemons {
            supervisor.start(daemon);
        }
        Ok(Running {
            dispatch,
            admin,
            acceptor,
            supervisor,
            control,
            housekeeping,
            witness,
            budget,
            lame_duck: lame_duck(&self.config),
            pollers: self.pollers,
        })
    }
}

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
        Cause::Died(death) => Err(Error::with_code(EX_SOFTWARE, format!("daemon {}: {}", death.name, death.why))),
        Cause::Requested(_) if report.forced => Err(Error::with_code(
            EX_TEMPFAIL,
            "not everything could be finished; the stop report names what was given up",
        )),
        Cause::Requested(_) => Ok(()),
    }
}

/// How long the lame duck may last. A stop that waits for load balancers to have heard of it has more to wait for.
fn lame_duck(config: &Config) -> Duration {
    let shutdown = &config.shutdown;
    if config.health.kind == HealthKind::Esx && shutdown.lame_duck.0.is_none() {
        return shutdown.budget.get().saturating_sub(config.http.request_timeout.get());
    }
    shutdown.lame_duck.get()
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
                    failed.push(format!("{name}: {error}"));
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
            Self::Died(death) => write!(f, "daemon {} failed: {}", death.name, death.why),
        }
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("http", &self.http_addr())
            .field("admin", &self.admin_addr())
            .finish_non_exhaustive()
    }
}
