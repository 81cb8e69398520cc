//! The control thread: what must work while handlers block every worker of the main runtime.
//!
//! It has a thread and a runtime of its own, for the admin listener, the signals, and the watchdog that ends a
//! process which cannot end itself.

use std::io;
use std::net::TcpListener;
use std::process;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mainspring_daemon::{Shutdown, Trigger};
use mainspring_observe::log;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin;
use crate::app::Launched;
use crate::error::EX_TEMPFAIL;
use crate::http::{Dispatch, Routes, Settings};
use crate::metrics::ServerMetrics;
use crate::report::{GivenUp, Witness};
use crate::serve::{Acceptor, Connections, Limits};
use crate::signals::{Signals, Told};

/// The running control thread.
#[derive(Debug)]
pub(crate) struct Control {
    thread: JoinHandle<()>,
    stop: Trigger,
    requested: watch::Receiver<Option<&'static str>>,
    armed: watch::Sender<Option<Instant>>,
    budget: Duration,
}

/// What it is to do.
pub(crate) struct Setup {
    pub(crate) admin: Option<TcpListener>,
    pub(crate) router: axum::Router,
    /// Whether to listen to signals, and to end the process when it cannot end itself.
    pub(crate) signals: bool,
    pub(crate) budget: Duration,
    pub(crate) log: Option<log::Handle>,
    /// How to read the configuration again, where `launch` has read it.
    pub(crate) launched: Option<Arc<Launched>>,
    pub(crate) witness: Witness,
}

/// How long after the budget the watchdog waits for the main runtime, which gives up by itself at the budget.
const WATCHDOG_GRACE: Duration = Duration::from_millis(150);
/// How long sockets and timers may be left to nobody.
const NUDGE: Duration = Duration::from_millis(250);
/// The admin listener's own limits.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

impl Control {
    /// Starts the thread. When this returns, signals are caught.
    pub(crate) fn start(setup: Setup) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = Shutdown::channel();
        let (request, requested) = watch::channel(None);
        let (armed, watched) = watch::channel(None);
        let budget = setup.budget;
        let signals = setup.signals.then(|| {
            let _entered = runtime.enter();
            Signals::new()
        });
        let signals = signals.transpose()?;
        if let (Some(_), Some(launched)) = (&signals, &setup.launched) {
            launched.serves();
        }
        let arm = armed.clone();
        let main = Handle::current();
        let thread = std::thread::Builder::new().name("mainspring-control".to_owned()).spawn(move || {
            let (ends_process, witness) = (setup.signals, setup.witness);
            runtime.block_on(async move {
                let second = |number| exit_now(128 + number, "second signal", &witness);
                tokio::select! {
                    () = stopped.requested() => {}
                    () = nudge(&main) => {}
                    () = serve_admin(setup.admin, setup.router) => {}
                    () = follow(signals, &request, &arm, budget, || hang_up(setup.log.as_ref(), setup.launched.as_deref()), second) => {}
                    () = watchdog(watched) => {
                        if ends_process {
                            exit_now(EX_TEMPFAIL, "the budget ran out and the runtime does not answer", &witness);
                        }
                    }
                }
            });
            // A profile may still be written down on another thread; nobody waits for it any more.
            runtime.shutdown_background();
        })?;
        Ok(Self { thread, stop, requested, armed, budget })
    }

    /// Waits for SIGTERM or SIGINT, and names it.
    pub(crate) fn signal(&self) -> impl Future<Output = String> + Send + 'static {
        let mut requested = self.requested.clone();
        async move {
            let name = requested.wait_for(Option::is_some).await.ok().and_then(|name| *name);
            match name {
                Some(name) => name.to_owned(),
                None => std::future::pending().await,
            }
        }
    }

    /// Starts the watchdog, unless a signal has started it already.
    pub(crate) fn arm(&self) {
        arm(&self.armed, self.budget);
    }

    /// Ends the thread. The wait is short: the thread never blocks.
    pub(crate) fn stop(self) {
        self.stop.request(Instant::now());
        let _ = self.thread.join();
    }
}

/// The first SIGTERM or SIGINT requests a stop, the second ends the process; SIGHUP reopens and reloads.
async fn follow(
    signals: Option<Signals>,
    request: &watch::Sender<Option<&'static str>>,
    armed: &watch::Sender<Option<Instant>>,
    budget: Duration,
    hang_up: impl Fn(),
    second: impl Fn(u8),
) {
    let Some(mut signals) = signals else { return std::future::pending().await };
    loop {
        let Told::Stop(name, number) = signals.next().await else {
            hang_up();
            continue;
        };
        if request.borrow().is_some() {
            second(number);
        }
        tracing::info!(signal = name, budget_ms = budget.as_millis() as u64, "stopping");
        arm(armed, budget);
        request.send_replace(Some(name));
    }
}

/// What SIGHUP does. The logs come first, so that what reloading has to say is in the new file.
fn hang_up(log: Option<&log::Handle>, launched: Option<&Launched>) {
    let Some(log) = log else { return };
    // A file that cannot be opened is in the log already.
    if log.reopen().is_ok() {
        tracing::info!("SIGHUP: logs reopened");
    }
    if let Some(launched) = launched {
        launched.reload.run(log);
    }
}

/// Wakes a thread of the main runtime now and then. A worker that takes the only event there is, and then blocks in it,
/// leaves sockets and timers to nobody: tokio wakes another worker only when there is more to do.
async fn nudge(main: &Handle) {
    loop {
        tokio::time::sleep(NUDGE).await;
        drop(main.spawn(std::future::ready(())));
    }
}

async fn watchdog(mut armed: watch::Receiver<Option<Instant>>) {
    let deadline = match armed.wait_for(Option::is_some).await {
        Ok(deadline) => *deadline,
        Err(_) => None,
    };
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn arm(armed: &watch::Sender<Option<Instant>>, budget: Duration) {
    armed.send_if_modified(|deadline| {
        let first = deadline.is_none();
        deadline.get_or_insert_with(|| Instant::now() + budget + WATCHDOG_GRACE);
        first
    });
}

/// Serves the admin listener until dropped.
async fn serve_admin(listener: Option<TcpListener>, router: axum::Router) {
    let Some(listener) = listener else { return std::future::pending().await };
    let metrics = Arc::new(ServerMetrics::new());
    let limits = Limits {
        max_connections: 256,
        max_header_bytes: 64 * 1024,
        first_byte_timeout: Duration::from_secs(10),
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        last_call: Duration::ZERO,
    };
    let settings = Settings { max_in_flight: 256, max_body: 64 * 1024, body_timeout: Duration::from_secs(10) };
    let routes = match Routes::of(&router, ADMIN_TIMEOUT, &admin::UNTIMED, &[]) {
        Ok(routes) => routes,
        Err(error) => return tracing::error!(error, "the admin listener has no routes"),
    };
    let dispatch = Dispatch::new(router, routes, settings, None, Arc::clone(&metrics), Shutdown::never());
    match Acceptor::new("admin", listener, Connections::new(limits, metrics), dispatch) {
        Ok(mut acceptor) => acceptor.accept().await,
        Err(error) => tracing::error!(%error, "the admin listener cannot be served"),
    }
}

/// Ends the process here and now, and says what that cuts off.
#[expect(
    clippy::disallowed_methods,
    reason = "a second signal, and a runtime that does not answer, leave no other way"
)]
fn exit_now(code: u8, why: &str, witness: &Witness) -> ! {
    let given_up = GivenUp {
        connections: witness.connections.as_ref().map(|connections| connections.left()).unwrap_or_default(),
        daemons: witness.roll.names(),
        unflushed: Vec::new(),
    };
    witness.last_report(why.to_owned(), given_up).log();
    tracing::error!(code, why, "exiting at once; the stop report names what was given up");
    if let Some(log) = log::handle() {
        log.flush(Duration::from_millis(50));
    }
    process::exit(i32::from(code))
}
