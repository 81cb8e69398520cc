//! A server whose sockets are taken, and how it is put together to run.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use mainspring_daemon::Board;
use mainspring_observe::{Identity, log};
use tokio::task::JoinSet;

use crate::admin::{self, Heartbeat, RuntimeMetrics};
use crate::app::Launched;
use crate::config::HealthKind;
use crate::control::{Control, Setup};
use crate::descriptors;
use crate::error::EX_UNAVAILABLE;
use crate::http::{AccessLog, Dispatch, Routes, Settings};
use crate::lifecycle::Lifecycle;
use crate::metrics::ServerMetrics;
use crate::pollers::Pollers;
use crate::report::Witness;
use crate::running::{Running, into_result};
use crate::serve::{Acceptor, Connections, Limits};
use crate::supervisor::{Daemon, Supervisor};
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
    /// when a critical daemon died (78 if it could not work as configured), 75 when the budget ran out and something was given up. Dropping the future ends
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
        let wanted = http.max_connections as usize;
        let limits = Limits {
            max_connections: if self.listeners.is_some() { descriptors::cap(wanted) } else { wanted },
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
                let acceptor = Acceptor::new("public", listeners.http, connections, Arc::clone(&dispatch))
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

/// How long the lame duck may last. A stop that waits for load balancers to have heard of it has more to wait for.
fn lame_duck(config: &Config) -> Duration {
    let shutdown = &config.shutdown;
    if config.health.kind == HealthKind::Esx && shutdown.lame_duck.0.is_none() {
        return shutdown.budget.get().saturating_sub(config.http.request_timeout.get());
    }
    shutdown.lame_duck.get()
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("http", &self.http_addr())
            .field("admin", &self.admin_addr())
            .finish_non_exhaustive()
    }
}
