//! What these tests share: a service made of any router, and clients, good ones and odd ones.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainspring_server::config::LameDuck;
use mainspring_server::testing::TestApp;
use mainspring_server::{Config, Service, SimpleServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A service with any routes.
pub(crate) struct Plain(pub(crate) Router);

impl Service for Plain {
    const NAME: &'static str = "plain";

    fn routes(self: Arc<Self>) -> Router {
        self.0.clone()
    }
}

/// The defaults without a lame duck, which depends on where the tests run, changed as the test wants.
pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.shutdown.lame_duck = LameDuck(Some(Duration::ZERO.into()));
    change(&mut config);
    config
}

pub(crate) fn server(config: Config, router: Router) -> SimpleServer {
    SimpleServer::new(config).register(Plain(router))
}

pub(crate) async fn on_loopback(router: Router, change: impl FnOnce(&mut Config)) -> TestApp {
    TestApp::on_loopback(server(config(change), router)).await
}

pub(crate) async fn in_process(router: Router, change: impl FnOnce(&mut Config)) -> TestApp {
    TestApp::in_process(server(config(change), router)).await
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits for something that must happen; a test that waits in vain fails instead of hanging. Long, because a busy machine
/// takes ten times as long as an idle one.
pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), wait).await {
        Ok(happened) => happened,
        Err(_) => panic!("waited in vain for: {what}"),
    }
}

/// Asks again and again until `fact` holds.
pub(crate) async fn until(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !fact().await {
            tokio::time::sleep(ms(1)).await;
        }
    };
    soon(what, holds).await;
}

/// The value of a sample of `/metrics`, given with all its labels in order; 0 when there is none.
pub(crate) async fn sample(app: &TestApp, name: &str) -> f64 {
    let text = app.admin(get("/metrics")).await.text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// How many requests were counted for a method, route and status.
pub(crate) async fn requests(app: &TestApp, method: &str, route: &str, status: u16) -> f64 {
    let name = format!(
        "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",http_route=\"{route}\",\
         http_response_status_code=\"{status}\"}}"
    );
    sample(app, &name).await
}

/// Fails unless the answer is a problem of this status; answers what it says.
#[track_caller]
pub(crate) fn problem(status: u16, headers: &HeaderMap, body: &[u8]) -> serde_json::Value {
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
    assert_eq!(kind, Some("application/problem+json"), "{}", String::from_utf8_lossy(body));
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    assert!(headers.contains_key("x-request-id"), "every response carries x-request-id");
    problem
}

/// A socket, for clients that no library makes.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// A response as a client reads it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Raw {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(addr)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::of(stream)
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("a write", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The next `n` bytes.
    pub(crate) async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.read.len() < n {
            assert!(self.more().await, "the connection ended {} bytes early", n - self.read.len());
        }
        self.read.drain(..n).collect()
    }

    /// The bytes up to and including `end`.
    pub(crate) async fn through(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                return String::from_utf8(self.exactly(at + end.len()).await).unwrap();
            }
            assert!(self.more().await, "no {end:?} in {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The next response, whose body has a stated length.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.through("\r\n\r\n").await;
        let mut reply = Reply::parse(&head);
        let length = reply.headers.get("content-length").map_or("0", |length| length.to_str().unwrap());
        reply.body = self.exactly(length.parse().unwrap()).await.into();
        reply
    }

    /// What comes until the server closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// Whether more came, rather than the end.
    async fn more(&mut self) -> bool {
        match soon("bytes, or the end of the connection", self.stream.read_buf(&mut self.read)).await {
            Ok(n) => n > 0,
            // A socket that is closed with unread bytes in it is reset: an end like any other.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Reply {
    /// Reads a response's head.
    pub(crate) fn parse(head: &str) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line in {head:?}"));
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers: HeaderMap::try_from(&headers).unwrap(), body: Bytes::new() }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{}", self.text());
        problem(status, &self.headers, &self.body)
    }
}

/// A well-behaved HTTP/1.1 client on one connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinSet<hyper::Result<()>>,
}

impl Http1 {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).await.unwrap()
    }

    pub(crate) async fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self { sender, driver })
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Reply> {
        soon("an idle connection", self.sender.ready()).await?;
        let response = soon("a response", self.sender.send_request(request(path))).await?;
        soon("the end of a response", read(response)).await
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn ended(&mut self) {
        let _ = soon("the end of the connection", self.driver.join_next()).await;
    }
}

/// A well-behaved HTTP/2 client on one connection.
#[derive(Debug)]
pub(crate) struct Http2 {
    pub(crate) sender: http2::SendRequest<Full<Bytes>>,
    driver: JoinSet<hyper::Result<()>>,
}

impl Http2 {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).await.unwrap()
    }

    pub(crate) async fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(std::io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self { sender, driver })
    }

    /// Sends a request; many may be in progress.
    pub(crate) fn get(&self, path: &str) -> impl Future<Output = hyper::Result<Reply>> + Send + use<> {
        let (mut sender, request) = (self.sender.clone(), request(path));
        async move {
            soon("a usable connection", sender.ready()).await?;
            let response = soon("a response", sender.send_request(request)).await?;
            soon("the end of a response", read(response)).await
        }
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn ended(&mut self) {
        let _ = soon("the end of the connection", self.driver.join_next()).await;
    }
}

pub(crate) fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "test").body(Full::default()).unwrap()
}

pub(crate) async fn read(response: axum::http::Response<hyper::body::Incoming>) -> hyper::Result<Reply> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}

/// A body that yields these parts, one after another, and then does as `last` says.
pub(crate) fn parts_then(
    parts: &'static [&'static str],
    last: impl Future<Output = Option<&'static str>> + Send + 'static,
) -> Body {
    use futures_util::stream::{StreamExt, iter, once};
    let parts = iter(parts.iter().copied().map(Some)).chain(once(last));
    let parts =
        parts.filter_map(std::future::ready).map(|part| Ok::<_, Infallible>(Bytes::from_static(part.as_bytes())));
    Body::from_stream(parts)
}

/// A gate that handlers wait at until the test opens it.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    waiting: Arc<std::sync::atomic::AtomicUsize>,
    semaphore: Arc<tokio::sync::Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { waiting: Arc::default(), semaphore: Arc::new(tokio::sync::Semaphore::new(0)) }
    }

    /// Waits until the gate is open.
    pub(crate) fn pass(&self) -> impl Future<Output = ()> + Send + 'static {
        let gate = self.clone();
        async move {
            gate.waiting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _passed = gate.semaphore.acquire().await;
        }
    }

    /// Opens the gate for good.
    pub(crate) fn open(&self) {
        self.semaphore.close();
    }

    /// Waits until as many have arrived at it.
    pub(crate) async fn reached_by(&self, n: usize) {
        until(&format!("{n} at the gate"), async || self.waiting.load(std::sync::atomic::Ordering::SeqCst) >= n).await;
    }
}

/// Tells when it is dropped.
pub(crate) struct Witness(Option<tokio::sync::oneshot::Sender<()>>);

impl Witness {
    pub(crate) fn new() -> (Self, tokio::sync::oneshot::Receiver<()>) {
        let (sender, dropped) = tokio::sync::oneshot::channel();
        (Self(Some(sender)), dropped)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.0.take().map(|sender| sender.send(()));
    }
}
