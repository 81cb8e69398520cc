//! The whole daemon in one test: on ephemeral ports, or on none with a clock that tests move.
//!
//! ```
//! use std::sync::Arc;
//! use axum::{Router, body::Body, http::Request, routing::get};
//! use mainspring_server::{Service, SimpleServer, testing::TestApp};
//!
//! struct Hello;
//! impl Service for Hello {
//!     const NAME: &'static str = "hello";
//!     fn routes(self: Arc<Self>) -> Router {
//!         Router::new().route("/hello", get(async || "hello"))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let app = TestApp::in_process(SimpleServer::new(Default::default()).register(Hello)).await;
//! let answer = app.request(Request::get("/hello").body(Body::empty()).unwrap()).await;
//! assert_eq!(answer.text(), "hello");
//! let report = app.sigterm().await;
//! assert!(!report.forced);
//! # }
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tower::Service as _;

use crate::bound::Bound;
use crate::config::AdminAddr;
use crate::http::RequestService;
use crate::running::Running;
use crate::{SimpleServer, StopReport};

/// A daemon that runs in this test, with its daemons, admin pages and shutdown. Dropping it ends everything at once.
#[derive(Debug)]
pub struct TestApp {
    http: Option<SocketAddr>,
    admin_addr: Option<SocketAddr>,
    service: RequestService,
    admin: axum::Router,
    lifecycle: crate::lifecycle::Lifecycle,
    sigterm: oneshot::Sender<()>,
    task: JoinSet<StopReport>,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl TestApp {
    /// Starts `server` without any port. Requests are made with [`request`](Self::request) and pass through everything
    /// but a socket; time may be paused (`#[tokio::test(start_paused = true)]`). Returns once the daemon is ready.
    ///
    /// # Panics
    /// When the server's configuration or routes do not fit together.
    pub async fn in_process(server: SimpleServer) -> Self {
        let bound = server.assemble(None).unwrap_or_else(|error| panic!("cannot start: {error}"));
        Self::start(bound).await
    }

    /// Starts `server` on ports of its own on loopback, whatever its configuration says. Returns once it is ready.
    ///
    /// # Panics
    /// When the server's configuration or routes do not fit together.
    pub async fn on_loopback(mut server: SimpleServer) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        server.config_mut().http.addr = any;
        server.config_mut().admin.addr = AdminAddr(Some(any));
        let bound = server.bind().unwrap_or_else(|error| panic!("cannot start: {error}"));
        Self::start(bound).await
    }

    /// Where the public listener is.
    ///
    /// # Panics
    /// For an app without ports.
    pub fn addr(&self) -> SocketAddr {
        self.http.unwrap_or_else(|| panic!("this app runs without ports; use TestApp::on_loopback"))
    }

    /// Where the admin listener is.
    ///
    /// # Panics
    /// For an app without ports.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr.unwrap_or_else(|| panic!("this app runs without ports; use TestApp::on_loopback"))
    }

    /// Makes a request to the public routes, in this process.
    pub async fn request(&self, request: Request<Body>) -> Answer {
        match self.service.handle(request).await {
            Ok(response) => Answer::read(response).await,
            Err(never) => match never {},
        }
    }

    /// Makes a request to the admin pages, in this process.
    pub async fn admin(&self, request: Request<Body>) -> Answer {
        match self.admin.clone().call(request).await {
            Ok(response) => Answer::read(response).await,
            Err(never) => match never {},
        }
    }

    /// The current phase.
    pub fn phase(&self) -> crate::Phase {
        self.lifecycle.phase()
    }

    /// Does what SIGTERM does, and waits for the end.
    pub async fn sigterm(mut self) -> StopReport {
        // Nobody receives it when a critical daemon has died already: then the report tells.
        let _ = self.sigterm.send(());
        join(&mut self.task).await
    }

    /// Waits until the process would have ended by itself, because a critical daemon died.
    pub async fn ended(mut self) -> StopReport {
        join(&mut self.task).await
    }

    /// Begins what SIGTERM does; await the answer for the end. The app can still be asked meanwhile.
    pub fn begin_sigterm(self) -> Stopping {
        let Self { service, admin, lifecycle, sigterm, task, .. } = self;
        let _ = sigterm.send(());
        Stopping { service, admin, lifecycle, task }
    }

    async fn start(bound: Bound) -> Self {
        let (http, admin_addr) = (bound.http_addr(), bound.admin_addr());
        let lifecycle = bound.lifecycle.clone();
        let mut running = bound.start(false).unwrap_or_else(|error| panic!("cannot start: {error}"));
        let (sigterm, requested) = oneshot::channel::<()>();
        let service = RequestService::detached(Arc::clone(&running.dispatch));
        let admin = running.admin.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let requested = async {
                match requested.await {
                    Ok(()) => "SIGTERM".to_owned(),
                    Err(_) => std::future::pending().await,
                }
            };
            let cause = running.serve(requested).await;
            Running::stop(running, cause).await.1
        });
        while lifecycle.phase() < crate::Phase::Ready && task.try_join_next().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        Self { http, admin_addr, service, admin, lifecycle, sigterm, task }
    }
}

/// A daemon that is stopping.
#[derive(Debug)]
pub struct Stopping {
    service: RequestService,
    admin: axum::Router,
    lifecycle: crate::lifecycle::Lifecycle,
    task: JoinSet<StopReport>,
}

impl Stopping {
    /// Makes a request to the public routes, in this process.
    pub async fn request(&self, request: Request<Body>) -> Answer {
        match self.service.handle(request).await {
            Ok(response) => Answer::read(response).await,
            Err(never) => match never {},
        }
    }

    /// Makes a request to the admin pages, in this process.
    pub async fn admin(&self, request: Request<Body>) -> Answer {
        match self.admin.clone().call(request).await {
            Ok(response) => Answer::read(response).await,
            Err(never) => match never {},
        }
    }

    /// The current phase.
    pub fn phase(&self) -> crate::Phase {
        self.lifecycle.phase()
    }

    /// Waits for the end.
    pub async fn ended(mut self) -> StopReport {
        join(&mut self.task).await
    }
}

impl Answer {
    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|error| panic!("the body is no text: {error}"))
    }

    /// The body, read as JSON.
    ///
    /// # Panics
    /// When it is not JSON of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    async fn read<B>(response: axum::http::Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("the response was broken off: {error:?}"));
        Self { status: head.status, headers: head.headers, body: body.to_bytes() }
    }
}

async fn join(task: &mut JoinSet<StopReport>) -> StopReport {
    match task.join_next().await {
        Some(Ok(report)) => report,
        Some(Err(error)) => panic!("the server's own task failed: {error}"),
        None => panic!("the daemon ended while it was starting"),
    }
}
