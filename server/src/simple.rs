//! `SimpleServer`: what is going to run, before anything is bound.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use mainspring_config as config;
use mainspring_daemon::{Board, BoxError, Context};
use mainspring_observe::Identity;

use crate::app::{Launched, launched};
use crate::bound::{Bound, Listeners};
use crate::error::{EX_CONFIG, EX_UNAVAILABLE};
use crate::http::Routes;
use crate::supervisor::{Daemon, Policy, Start};
use crate::{Config, Error, Result, Service, health};

/// An HTTP server with its services and daemons.
///
/// Three steps: make it and [`register`](Self::register) (nothing happens yet), [`bind`](Self::bind) (all listeners
/// or none), run. [`run`](Self::run) does the last two.
#[derive(Debug)]
#[must_use = "a server does nothing until it is run"]
pub struct SimpleServer {
    config: Config,
    name: Option<&'static str>,
    router: axum::Router,
    untimed: Vec<&'static str>,
    health: Option<axum::routing::MethodRouter>,
    daemons: Vec<Daemon>,
    board: Arc<Board>,
    launched: Option<Arc<Launched>>,
}

impl SimpleServer {
    /// Makes a server. Inside [`App::launch`](crate::App::launch) it takes the app's name and version.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            name: None,
            router: axum::Router::new(),
            untimed: Vec::new(),
            health: None,
            daemons: Vec::new(),
            board: Arc::default(),
            launched: launched(),
        }
    }

    /// Adds a service.
    ///
    /// # Panics
    /// When two services have the same route, or both a fallback: axum says which.
    pub fn register<S: Service>(mut self, service: S) -> Self {
        let service = Arc::new(service);
        service.setup(&self.board);
        self.name.get_or_insert(S::NAME);
        self.untimed.extend(S::UNTIMED);
        self.router = self.router.merge(service.routes());
        self
    }

    /// Adds a background task that the process cannot do without: when it fails or panics the process stops in order
    /// and exits with 70. One that returns `Ok` has finished, and the process goes on.
    pub fn daemon<F, Fut, E>(mut self, name: &'static str, run: F) -> Self
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let start = Start::Once(Box::new(move |cx| {
            let run = run(cx);
            Box::pin(async move { run.await.map_err(Into::into) })
        }));
        self.daemons.push(Daemon { name, policy: Policy::once().critical(), start });
        self
    }

    /// Adds a background task with a policy of its own: [`Policy::once`] or [`Policy::restarting`], either of them
    /// [`critical`](Policy::critical) or not. The function is called again for each restart.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainspring_server::{Config, Policy, SimpleServer};
    /// # let server = SimpleServer::new(Config::default());
    /// let policy = Policy::restarting().backoff(Duration::from_secs(1), Duration::from_secs(60)).critical();
    /// let server = server.daemon_with("poll", policy, |cx| async move {
    ///     cx.shutdown().requested().await;
    ///     Ok::<(), std::io::Error>(())
    /// });
    /// ```
    pub fn daemon_with<F, Fut, E>(mut self, name: &'static str, policy: Policy, run: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let start = Start::Again(Box::new(move |cx| {
            let run = run(cx);
            Box::pin(async move { run.await.map_err(Into::into) })
        }));
        self.daemons.push(Daemon { name, policy, start });
        self
    }

    /// Sets what answers the health path when `health.kind` is `custom`, for example `get(handler)`. It is not asked any
    /// more once a stop was requested: then the answer is 503.
    ///
    /// `custom` without a handler is an error of [`bind`](Self::bind), a handler without `custom` a warning.
    pub fn health(mut self, handler: axum::routing::MethodRouter) -> Self {
        self.health = Some(handler);
        self
    }

    /// Where checks, pages and flushes that belong to no service are put up.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Takes all listening sockets, or none. Nothing is served yet, but a client can connect already.
    ///
    /// Fails with code 69 naming every address that cannot be had, and with 78 when the configuration or a service's
    /// routes do not fit together.
    pub fn bind(self) -> Result<Bound> {
        let http = listen("http.addr", self.config.http.addr);
        let admin = self.config.admin.addr.0.map(|addr| listen("admin.addr", addr)).transpose();
        let listeners = match (http, admin) {
            (Ok(http), Ok(admin)) => Listeners { http, admin },
            (http, admin) => {
                let faults = [http.err(), admin.err()].into_iter().flatten().collect::<Vec<_>>().join("; ");
                return Err(Error::with_code(EX_UNAVAILABLE, format!("cannot listen: {faults}")));
            }
        };
        self.assemble(Some(listeners))
    }

    /// Binds, then runs until SIGTERM or SIGINT. See [`Bound::run`] for how it ends.
    ///
    /// A second signal exits at once with 128 + its number. SIGHUP reopens log files and, inside
    /// [`App::launch`](crate::App::launch), reads the configuration again: `log.filter` takes effect at once, what
    /// else has changed is named in the log and waits for the next start, and a faulty configuration changes nothing.
    pub async fn run(self) -> Result {
        // Inside `launch` this has happened; a second call changes nothing.
        let guard = crate::init(&self.config.log, &self.identity())?;
        let result = match self.bind() {
            Ok(bound) => bound.run_until_signal(guard.handle()).await,
            Err(error) => Err(error),
        };
        guard.flush(std::time::Duration::from_millis(500));
        result
    }

    /// Everything but sockets.
    pub(crate) fn assemble(self, listeners: Option<Listeners>) -> Result<Bound> {
        let mut problems = config::Report::of(&self.config);
        problems.extend(config::Report::of(&self.config.log));
        if !problems.is_empty() {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            return Err(Error::with_code(EX_CONFIG, lines.join("\n")));
        }
        self.config.metrics.install();
        let identity = self.identity();
        let lifecycle = crate::lifecycle::Lifecycle::new();
        let health::Mounted { router, paths: vital, pollers } =
            health::mount(self.router, &self.config.health, self.health, &identity, &lifecycle)
                .map_err(|what| Error::with_code(EX_CONFIG, what))?;
        let timeout = self.config.http.request_timeout.get();
        let mut router = router.with_state(());
        if self.config.http.max_body.get() > AXUM_LIMIT {
            // Ours is the limit that counts; axum's own, which no handler can see, must not be the smaller one.
            router = router.layer(axum::extract::DefaultBodyLimit::disable());
        }
        let routes =
            Routes::of(&router, timeout, &self.untimed, &vital).map_err(|what| Error::with_code(EX_CONFIG, what))?;
        Ok(Bound {
            config: self.config,
            identity,
            launched: self.launched,
            router,
            routes,
            daemons: self.daemons,
            board: self.board,
            lifecycle,
            pollers,
            listeners,
            log: None,
        })
    }

    fn identity(&self) -> Identity {
        match &self.launched {
            Some(launched) => launched.identity.clone(),
            None => Identity::new(self.name.unwrap_or("mainspring"), "0.0.0"),
        }
    }

    /// For the test kit, which replaces addresses.
    pub(crate) fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }
}

/// What axum allows by itself.
const AXUM_LIMIT: u64 = 2 * 1024 * 1024;
/// Connections the kernel keeps for us while we are busy.
const BACKLOG: i32 = 1024;

fn listen(key: &str, addr: SocketAddr) -> Result<TcpListener, String> {
    let listen = || -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        // Lets a restarted process take its port while old connections linger; another listener still excludes it.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "another process, or another listener of this one, has it",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege",
            io::ErrorKind::AddrNotAvailable => "this machine does not have the address",
            _ => "check the address",
        };
        format!("{key} {addr}: {error} ({hint})")
    })
}
