//! SIGTERM, with every shape of client attached.

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::{get as on_get, post as on_post};
use bytes::Bytes;
use common::{Gate, Http1, Http2, Raw, get, ms, on_loopback, sample, soon, until};
use futures_util::StreamExt;
use mainspring_server::config::LameDuck;
use mainspring_server::testing::TestApp;
use mainspring_server::{Config, Phase, StopReport};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite;

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GET_HELLO: &str = "GET /hello HTTP/1.1\r\nhost: test\r\n\r\n";

const BUDGET: Duration = ms(1500);
/// What the budget leaves for requests; the rest is for flushing.
const DRAIN: Duration = ms(1350);
const LAST_CALL: Duration = ms(300);

fn quick(config: &mut Config) {
    config.shutdown.budget = BUDGET.into();
    config.shutdown.last_call = LAST_CALL.into();
    config.http.request_timeout = BUDGET.into();
}

fn hello() -> Router {
    Router::new().route("/hello", on_get(async || "hello"))
}

fn waits(gate: &Gate) -> Router {
    let gate = gate.clone();
    let waits = async move || {
        gate.pass().await;
        "done"
    };
    hello().route("/waits", on_get(waits))
}

/// Requests a stop and waits for the end, while a healthy client on a connection of its own asks once more.
async fn stop_beside_a_healthy_client(app: TestApp) -> (StopReport, Duration) {
    let mut healthy = Http1::connect(app.addr()).await;
    assert_eq!(healthy.get("/hello").await.unwrap().text(), "hello");
    let began = Instant::now();
    let stopping = app.begin_sigterm();
    until("draining", async || stopping.phase() >= Phase::Draining).await;
    let last = healthy.get("/hello").await.expect("a healthy client is answered");
    assert_eq!((last.text(), last.header("connection")), ("hello", Some("close")));
    healthy.ended().await;
    let report = soon("the end", stopping.ended()).await;
    let took = began.elapsed();
    assert!(took < BUDGET + ms(250), "{took:?} with a budget of {BUDGET:?}");
    assert_eq!(report.phases.iter().map(|(phase, _)| *phase).collect::<Vec<_>>(), ALL_PHASES);
    (report, took)
}

const ALL_PHASES: [Phase; 5] = [Phase::Starting, Phase::Ready, Phase::LameDuck, Phase::Draining, Phase::Flushing];

#[track_caller]
fn clean(report: &StopReport) {
    assert!(!report.forced && report.aborted.is_empty() && report.requests_aborted == 0, "{report:?}");
    assert_eq!(report.cause, "SIGTERM");
}

/// Nothing but this one thing was given up: a peer, what it was doing, and for how long.
#[track_caller]
fn gave_up(report: &StopReport, doing: &str, requests: u64) {
    assert!(report.forced, "{report:?}");
    assert_eq!((report.aborted.len(), report.requests_aborted), (1, requests), "{report:?}");
    let line = &report.aborted[0];
    assert!(line.starts_with("127.0.0.1:") && line.contains(&format!(" {doing} ")) && line.ends_with('s'), "{line}");
}

// Clients that have no request in progress: closed after the last call, and nothing was lost.

#[tokio::test]
async fn nobody() {
    let app = on_loopback(hello(), quick).await;
    let began = Instant::now();
    let report = app.sigterm().await;
    clean(&report);
    assert!(began.elapsed() < ms(100), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_silent_socket() {
    let app = on_loopback(hello(), quick).await;
    let mut silent = Raw::connect(app.addr()).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    assert_eq!(silent.rest().await, "");
}

#[tokio::test]
async fn half_the_http2_preface() {
    let app = on_loopback(hello(), quick).await;
    let mut half = Raw::connect(app.addr()).await;
    half.send(&PREFACE[..12]).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    half.rest().await;
}

#[tokio::test]
async fn the_http2_preface_without_settings() {
    let app = on_loopback(hello(), quick).await;
    let mut half = Raw::connect(app.addr()).await;
    half.send(PREFACE).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    half.rest().await;
}

#[tokio::test]
async fn an_http2_client_that_is_silent_after_its_settings() {
    let app = on_loopback(hello(), quick).await;
    let mut silent = Raw::connect(app.addr()).await;
    silent.send(PREFACE).await;
    silent.send(SETTINGS).await;
    silent.exactly(9).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    silent.rest().await;
}

// Clients in the middle of something: waited for until their own deadline or ours, then cut off by name.

#[tokio::test]
async fn half_a_head_until_its_own_deadline() {
    let app = on_loopback(hello(), |config| {
        quick(config);
        config.http.header_timeout = ms(500).into();
    });
    let app = app.await;
    let mut half = Raw::connect(app.addr()).await;
    half.send("GET /hello HTTP/1.1\r\nho").await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < DRAIN, "{took:?}");
    half.reply().await.problem(408);
}

#[tokio::test]
async fn half_a_head_until_our_deadline() {
    let app = on_loopback(hello(), quick).await;
    let mut half = Raw::connect(app.addr()).await;
    half.send("GET /hello HTTP/1.1\r\nho").await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    // Nothing was accepted that could be given up.
    clean(&report);
    assert!(took < DRAIN, "{took:?}");
    half.reply().await.problem(408);
}

#[tokio::test]
async fn idle_clients_do_not_cost_the_budget_however_long_their_last_call_is() {
    let app = on_loopback(hello(), |config| {
        quick(config);
        config.shutdown.last_call = Duration::from_secs(60).into();
    });
    let app = app.await;
    let mut idle = Http1::connect(app.addr()).await;
    assert_eq!(idle.get("/hello").await.unwrap().status, 200);
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < DRAIN, "{took:?}");
    idle.ended().await;
}

#[tokio::test]
async fn half_a_head_that_is_completed_in_time() {
    let app = on_loopback(hello(), quick).await;
    let mut half = Raw::connect(app.addr()).await;
    half.send(&GET_HELLO[..22]).await;
    until("both connections", async || sample(&app, "http_server_connections").await == 1.0).await;
    let stopping = app.begin_sigterm();
    until("draining", async || stopping.phase() >= Phase::Draining).await;
    half.send(&GET_HELLO[22..]).await;
    assert!(half.rest().await.ends_with("hello"));
    clean(&soon("the end", stopping.ended()).await);
}

#[tokio::test]
async fn a_head_and_half_a_body() {
    let app = on_loopback(hello().route("/echo", on_post(async |body: Bytes| body)), quick).await;
    let mut half = Raw::connect(app.addr()).await;
    half.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf").await;
    until("the request", async || sample(&app, "http_server_active_requests").await == 1.0).await;
    let (report, _) = stop_beside_a_healthy_client(app).await;
    gave_up(&report, "/echo", 1);
    assert_eq!(half.rest().await, "");
}

fn flood() -> Router {
    let chunk = Bytes::from(vec![b'x'; 256 * 1024]);
    let flood = async move || {
        let chunks = std::iter::repeat_n(chunk.clone(), 256).map(Ok::<_, Infallible>);
        Body::from_stream(futures_util::stream::iter(chunks))
    };
    hello().route("/flood", on_get(flood)).route("/block", on_get(async || Bytes::from(vec![b'x'; 24 << 20])))
}

#[tokio::test]
async fn a_client_that_does_not_read() {
    let app = on_loopback(flood(), quick).await;
    let mut deaf = Raw::connect(app.addr()).await;
    deaf.send("GET /flood HTTP/1.1\r\nhost: test\r\n\r\n").await;
    until("the request", async || sample(&app, "http_server_active_requests").await == 1.0).await;
    let (report, _) = stop_beside_a_healthy_client(app).await;
    gave_up(&report, "/flood", 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_an_answer_of_one_piece() {
    let app = on_loopback(flood(), quick).await;
    let mut deaf = Raw::connect(app.addr()).await;
    deaf.send("GET /block HTTP/1.1\r\nhost: test\r\n\r\n").await;
    deaf.through("\r\n\r\n").await;
    assert_eq!(sample(&app, "http_server_active_requests").await, 1.0);
    let (report, _) = stop_beside_a_healthy_client(app).await;
    gave_up(&report, "/block", 1);
}

/// Answers large enough that most of them waits for a client to read.
#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_an_answer_that_was_begun() {
    let gate = Gate::new();
    let at_gate = gate.clone();
    let late = async move || {
        at_gate.pass().await;
        Bytes::from(vec![b'x'; 24 << 20])
    };
    let app = on_loopback(flood().route("/late", on_get(late)), |config| {
        quick(config);
        config.shutdown.budget = Duration::from_secs(8).into();
    });
    let app = app.await;
    let mut early = Raw::connect(app.addr()).await;
    early.send("GET /block HTTP/1.1\r\nhost: test\r\n\r\n").await;
    early.through("\r\n\r\n").await;
    let mut late = Raw::connect(app.addr()).await;
    late.send("GET /late HTTP/1.1\r\nhost: test\r\n\r\n").await;
    gate.reached_by(1).await;
    let stopping = app.begin_sigterm();
    until("draining", async || stopping.phase() >= Phase::Draining).await;
    gate.open();
    late.through("\r\n\r\n").await;
    // Longer than an idle connection would be waited for.
    tokio::time::sleep(LAST_CALL + ms(300)).await;
    for _ in 0..24 {
        early.exactly(1 << 20).await;
        late.exactly(1 << 20).await;
    }
    clean(&soon("the end", stopping.ended()).await);
    assert_eq!((early.rest().await, late.rest().await), (String::new(), String::new()));
}

#[tokio::test]
async fn an_http2_client_that_reads_slowly_gets_all_of_it_too() {
    let app = on_loopback(flood(), |config| {
        quick(config);
        config.shutdown.budget = Duration::from_secs(8).into();
    });
    let app = app.await;
    let mut clients = JoinSet::new();
    let mut client = h2_client(app.addr(), &mut clients).await.ready().await.unwrap();
    let request = axum::http::Request::get("http://test/block").body(()).unwrap();
    let mut body = client.send_request(request, true).unwrap().0.await.unwrap().into_body();
    let stopping = app.begin_sigterm();
    until("draining", async || stopping.phase() >= Phase::Draining).await;
    // Longer than an idle connection would be waited for.
    tokio::time::sleep(LAST_CALL + ms(300)).await;
    let mut length = 0;
    while let Some(data) = soon("data", body.data()).await {
        let data = data.unwrap_or_else(|error| panic!("{error} after {length} bytes"));
        length += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(length, 24 << 20);
    drop(client);
    clean(&soon("the end", stopping.ended()).await);
}

#[tokio::test]
async fn a_handler_in_the_middle_of_a_request_finishes_it() {
    let gate = Gate::new();
    let app = on_loopback(waits(&gate), quick).await;
    let mut one = Raw::connect(app.addr()).await;
    one.send("GET /waits HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let two = Http2::connect(app.addr()).await;
    let finished = async {
        let (two, ()) = tokio::join!(two.get("/waits"), async {
            gate.reached_by(2).await;
            let stopping = app.begin_sigterm();
            until("draining", async || stopping.phase() >= Phase::Draining).await;
            // Longer than an idle connection would be waited for.
            tokio::time::sleep(LAST_CALL + ms(200)).await;
            gate.open();
            let report = soon("the end", stopping.ended()).await;
            clean(&report);
            assert_eq!(report.requests_finished, 2);
        });
        two
    };
    assert_eq!(finished.await.unwrap().text(), "done");
    let answer = one.reply().await;
    assert_eq!((answer.text(), answer.header("connection")), ("done", Some("close")));
}

#[tokio::test]
async fn a_handler_that_takes_longer_than_the_budget_is_dropped_and_named() {
    let gate = Gate::new();
    let app = on_loopback(waits(&gate), quick).await;
    let mut one = Raw::connect(app.addr()).await;
    one.send("GET /waits HTTP/1.1\r\nhost: test\r\n\r\n").await;
    gate.reached_by(1).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    gave_up(&report, "/waits", 1);
    assert!(took >= DRAIN, "{took:?}");
    assert_eq!(one.rest().await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_and_a_daemon_that_never_yield_are_named() {
    static OVER: AtomicBool = AtomicBool::new(false);
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    async fn stubborn() {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        while !OVER.load(Ordering::SeqCst) {
            std::thread::sleep(ms(1));
        }
    }
    /// Also when the test fails: a runtime with loops that never yield could not be dropped.
    struct EndLoops;
    impl Drop for EndLoops {
        fn drop(&mut self) {
            OVER.store(true, Ordering::SeqCst);
        }
    }
    let _end = EndLoops;
    let routes = hello().route("/stubborn", on_get(stubborn));
    let server = common::server(common::config(quick), routes).daemon("mule", |_| async {
        stubborn().await;
        Ok::<_, std::io::Error>(())
    });
    let app = TestApp::on_loopback(server).await;
    let mut one = Raw::connect(app.addr()).await;
    one.send("GET /stubborn HTTP/1.1\r\nhost: test\r\n\r\n").await;
    until("both", async || BEGUN.load(Ordering::SeqCst) == 2).await;
    let report = soon("the end", app.sigterm()).await;
    gave_up(&report, "/stubborn", 1);
    assert_eq!(report.daemons_aborted, ["mule"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_streams_that_take_longer_than_the_budget_are_dropped_and_named() {
    let gate = Gate::new();
    let app = on_loopback(waits(&gate), quick).await;
    let client = Http2::connect(app.addr()).await;
    let streams = futures_util::future::join_all((0..7).map(|_| client.get("/waits")));
    let (streams, report) = tokio::join!(streams, async {
        gate.reached_by(7).await;
        soon("the end", app.sigterm()).await
    });
    assert!(streams.into_iter().all(|stream| stream.is_err()));
    assert_eq!((report.requests_aborted, report.aborted.len()), (7, 7), "{report:?}");
    assert!(report.forced && report.aborted.iter().all(|line| line.contains(" /waits ")), "{report:?}");
}

#[tokio::test]
async fn an_event_stream_ends_cleanly() {
    let events = async || {
        let first = common::parts_then(&["data: one\n\n"], std::future::pending());
        ([("content-type", "text/event-stream")], first)
    };
    let app = on_loopback(hello().route("/events", on_get(events)), quick).await;
    let mut one = Raw::connect(app.addr()).await;
    one.send("GET /events HTTP/1.1\r\nhost: test\r\n\r\n").await;
    one.through("data: one\n\n\r\n").await;
    let two = Http2::connect(app.addr()).await;
    let (two, (report, took)) = tokio::join!(two.get("/events"), async {
        until("both", async || sample(&app, "http_server_active_requests").await == 2.0).await;
        stop_beside_a_healthy_client(app).await
    });
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    assert_eq!(one.rest().await, "0\r\n\r\n", "the last chunk: a clean end");
    assert_eq!(two.unwrap().text(), "data: one\n\n");
}

// WebSockets.

/// `/ws` echoes, `/push` writes and never reads, `/deaf` does neither.
fn sockets() -> Router {
    let echo = async |mut socket: WebSocket| {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    };
    let push = async |mut socket: WebSocket| {
        while socket.send(Message::text("x".repeat(300))).await.is_ok() {
            tokio::time::sleep(ms(2)).await;
        }
    };
    let deaf = async |_socket: WebSocket| std::future::pending::<()>().await;
    hello()
        .route("/ws", on_get(async move |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)))
        .route("/push", on_get(async move |upgrade: WebSocketUpgrade| upgrade.on_upgrade(push)))
        .route("/deaf", on_get(async move |upgrade: WebSocketUpgrade| upgrade.on_upgrade(deaf)))
}

type Client = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn websocket(app: &TestApp, path: &str) -> Client {
    let url = format!("ws://{}{path}", app.addr());
    soon("the handshake", tokio_tungstenite::connect_async(url)).await.unwrap().0
}

/// Reads to the end; answers the messages before it, and the close code.
async fn until_closed(client: &mut Client) -> (usize, Option<u16>) {
    let mut messages = 0;
    loop {
        match soon("a message, or the end", client.next()).await {
            Some(Ok(tungstenite::Message::Close(frame))) => return (messages, frame.map(|frame| frame.code.into())),
            Some(Ok(_)) => messages += 1,
            Some(Err(error)) => panic!("{error} after {messages} messages"),
            None => return (messages, None),
        }
    }
}

#[tokio::test]
async fn a_websocket_is_closed_with_1001() {
    use futures_util::SinkExt;
    let app = on_loopback(sockets(), quick).await;
    let mut client = websocket(&app, "/ws").await;
    // Of each length encoding, so that the close frame has to find the end of a frame.
    for length in [1, 125, 126, 70_000] {
        client.send(tungstenite::Message::text("x".repeat(length))).await.unwrap();
        let echo = soon("an echo", client.next()).await.unwrap().unwrap();
        assert_eq!(echo.len(), length);
    }
    assert_eq!(sample(&app, "http_server_connections").await, 1.0);
    let (stopped, closed) = tokio::join!(stop_beside_a_healthy_client(app), async {
        let closed = until_closed(&mut client).await;
        // Reading on answers the close frame, and sees the end.
        assert!(soon("the end", client.next()).await.is_none());
        closed
    });
    assert_eq!(closed, (0, Some(1001)));
    clean(&stopped.0);
    assert!(stopped.1 < LAST_CALL + ms(500), "{:?}", stopped.1);
}

#[tokio::test]
async fn a_websocket_whose_handler_only_writes_is_closed_with_1001() {
    let app = on_loopback(sockets(), quick).await;
    let mut client = websocket(&app, "/push").await;
    assert!(soon("a message", client.next()).await.unwrap().is_ok());
    let (stopped, (messages, code)) =
        tokio::join!(stop_beside_a_healthy_client(app), async { until_closed(&mut client).await });
    assert_eq!(code, Some(1001), "after {messages} whole messages");
    clean(&stopped.0);
}

#[tokio::test]
async fn a_websocket_that_nobody_serves_is_cut_off_and_named() {
    let app = on_loopback(sockets(), quick).await;
    let client = websocket(&app, "/deaf").await;
    let (report, _) = stop_beside_a_healthy_client(app).await;
    gave_up(&report, "upgraded", 0);
    drop(client);
}

// Idle connections, and connections that have only just come.

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_last_call() {
    let app = on_loopback(hello(), quick).await;
    let mut idle = Http1::connect(app.addr()).await;
    let mut idle2 = Http2::connect(app.addr()).await;
    idle.get("/hello").await.unwrap();
    idle2.get("/hello").await.unwrap();
    let began = Instant::now();
    clean(&soon("the end", app.sigterm()).await);
    let took = began.elapsed();
    assert!(took >= LAST_CALL && took < LAST_CALL + ms(400), "{took:?} with a last call of {LAST_CALL:?}");
    idle.ended().await;
    idle2.ended().await;
}

#[tokio::test]
async fn connections_that_the_kernel_has_accepted_are_served() {
    let app = on_loopback(hello(), quick).await;
    let addr = app.addr();
    let began = Instant::now();
    // This thread is the server's too: while it is held here, nothing is accepted but by the kernel.
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let mut client = std::net::TcpStream::connect(addr).unwrap();
            std::io::Write::write_all(&mut client, GET_HELLO.as_bytes()).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let stopping = app.begin_sigterm();
    let answers = clients.into_iter().map(async |client| {
        let mut client = Raw::of(tokio::net::TcpStream::from_std(client).unwrap());
        let answer = client.reply().await;
        assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
    });
    let (report, _) = tokio::join!(stopping.ended(), futures_util::future::join_all(answers));
    clean(&report);
    assert_eq!(report.requests_finished, 200);
    assert!(began.elapsed() < BUDGET, "{:?}", began.elapsed());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nothing is accepted any more");
}

/// A client of plain `h2`, which tells a request that was never sent, because a GOAWAY had been heard, from one that
/// failed.
async fn h2_client(addr: SocketAddr, clients: &mut JoinSet<()>) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    clients.spawn(async move { drop(connection.await) });
    client
}

fn h2_get(
    client: &mut h2::client::SendRequest<Bytes>,
    path: &str,
) -> Result<impl Future<Output = Result<Vec<u8>, h2::Error>> + use<>, h2::Error> {
    let request = axum::http::Request::get(format!("http://test{path}")).body(()).unwrap();
    let (response, _) = client.send_request(request, true)?;
    Ok(async {
        let mut body = response.await?.into_body();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend(data?);
        }
        Ok(text)
    })
}

#[tokio::test]
async fn a_goaway_asks_http2_clients_to_go_and_lets_open_streams_finish() {
    let gate = Gate::new();
    let app = on_loopback(waits(&gate), quick).await;
    let mut clients = JoinSet::new();
    let mut client = h2_client(app.addr(), &mut clients).await.ready().await.unwrap();
    let open: Vec<_> = (0..10).map(|_| h2_get(&mut client, "/waits").unwrap()).collect();
    gate.reached_by(10).await;
    let stopping = app.begin_sigterm();
    until("a GOAWAY", async || client.clone().ready().await.is_err()).await;
    assert!(h2_get(&mut client, "/hello").is_err());
    gate.open();
    for answer in open {
        assert_eq!(soon("an answer", answer).await.unwrap(), b"done");
    }
    let report = soon("the end", stopping.ended()).await;
    clean(&report);
    assert_eq!(report.requests_finished, 10);
    soon("the end of the connection", clients.join_next()).await;
}

#[tokio::test]
async fn a_request_that_crosses_the_goaway_is_answered() {
    let app = on_loopback(hello(), quick).await;
    let mut clients = JoinSet::new();
    let mut client = h2_client(app.addr(), &mut clients).await.ready().await.unwrap();
    assert_eq!(h2_get(&mut client, "/hello").unwrap().await.unwrap(), b"hello");
    // The client's task does not run between the last line and this loop's: it has not read what may have come.
    let stopping = app.begin_sigterm();
    let crossing: Vec<_> = (0..3).map(|_| h2_get(&mut client, "/hello").unwrap()).collect();
    for answer in crossing {
        assert_eq!(soon("an answer", answer).await.unwrap(), b"hello");
    }
    clean(&soon("the end", stopping.ended()).await);
}

#[tokio::test]
async fn a_lame_duck_says_so_and_serves_everything() {
    let app = on_loopback(hello(), |config| {
        quick(config);
        config.shutdown.lame_duck = LameDuck(Some(ms(400).into()));
        config.http.request_timeout = ms(1000).into();
    });
    let app = app.await;
    let addr = app.addr();
    assert_eq!(app.request(get("/healthz")).await.status, 200);
    assert_eq!(app.admin(get("/readyz")).await.status, 200);
    let mut old = Http1::connect(addr).await;
    old.get("/hello").await.unwrap();
    let began = Instant::now();
    let stopping = app.begin_sigterm();
    until("the lame duck", async || stopping.phase() == Phase::LameDuck).await;
    for path in ["/healthz", "/status.txt"] {
        assert_eq!(stopping.request(get(path)).await.status, 503, "{path}");
    }
    let readyz = stopping.admin(get("/readyz?verbose")).await;
    assert!(readyz.status == 503 && readyz.text().contains("lame_duck"), "{}", readyz.text());
    assert_eq!(stopping.admin(get("/livez")).await.status, 200);
    // Connections old and new are served, and told to go elsewhere.
    let mut new = Http1::connect(addr).await;
    for client in [&mut old, &mut new] {
        let answer = client.get("/hello").await.unwrap();
        assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
        client.ended().await;
    }
    let mut unwell = Http1::connect(addr).await;
    assert_eq!(unwell.get("/healthz").await.unwrap().status, 503);
    let new = Http2::connect(addr).await;
    assert_eq!(new.get("/hello").await.unwrap().text(), "hello");
    assert_eq!(stopping.phase(), Phase::LameDuck, "the machine is too slow for this test");
    let report = soon("the end", stopping.ended()).await;
    clean(&report);
    assert!(began.elapsed() >= ms(400), "{:?}", began.elapsed());
    let lame_duck = report.phases.iter().find(|(phase, _)| *phase == Phase::LameDuck).unwrap().1;
    assert!(lame_duck >= ms(400) && lame_duck < ms(500), "{lame_duck:?}");
}

// Under load.

/// What happened to the requests of one round. A request counts from when its connection has answered before.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicUsize,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    fn failed(&self, what: impl std::fmt::Debug) {
        self.failed.lock().unwrap().push(format!("{what:?}"));
    }
}

const H1_CLIENTS: u64 = 12;
const H2_CLIENTS: u64 = 2;
const H2_STREAMS: u64 = 4;
const RATE: u64 = 2000;

/// Sends a request every so often and opens a new connection when told to go; ends when there is nobody to connect to.
async fn h1_load(addr: SocketAddr, tally: Arc<Tally>, mut pace: tokio::time::Interval) {
    while let Ok(mut client) = Http1::try_connect(addr).await {
        let mut answered = false;
        loop {
            pace.tick().await;
            if client.sender.is_closed() {
                // The last answer did not say `connection: close`, so the next request would have met a reset.
                if answered {
                    tally.failed("closed without a word");
                }
                break;
            }
            match client.get("/hello").await {
                Ok(answer) => {
                    assert_eq!(answer.text(), "hello");
                    tally.answered.fetch_add(1, Ordering::Relaxed);
                    answered = true;
                    if answer.header("connection") == Some("close") {
                        break;
                    }
                }
                // A connection that was never answered may have come too late; it is not what is promised.
                Err(error) => {
                    if answered {
                        tally.failed(error);
                    }
                    break;
                }
            }
        }
    }
}

/// The same for one stream after another of a connection that is shared.
async fn h2_load(client: h2::client::SendRequest<Bytes>, tally: Arc<Tally>, mut pace: tokio::time::Interval) {
    loop {
        pace.tick().await;
        let Ok(mut client) = client.clone().ready().await else { return };
        let Ok(answer) = h2_get(&mut client, "/hello") else { return };
        match soon("a response", answer).await {
            Ok(text) => assert_eq!(text, b"hello"),
            Err(error) => tally.failed(error),
        }
        tally.answered.fetch_add(1, Ordering::Relaxed);
    }
}

async fn fifty_rounds(lame_duck: Duration) {
    let mut random = fastrand::Rng::new();
    for round in 0..50 {
        let app = on_loopback(hello(), |config| config.shutdown.lame_duck = LameDuck(Some(lame_duck.into()))).await;
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        let gap = Duration::from_secs(H1_CLIENTS + H2_CLIENTS * H2_STREAMS) / RATE as u32;
        let mut pace = || {
            let start = tokio::time::Instant::now() + gap.mul_f64(random.f64());
            let mut pace = tokio::time::interval_at(start, gap);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            pace
        };
        for _ in 0..H1_CLIENTS {
            clients.spawn(h1_load(app.addr(), Arc::clone(&tally), pace()));
        }
        for _ in 0..H2_CLIENTS {
            let client = h2_client(app.addr(), &mut clients).await;
            for _ in 0..H2_STREAMS {
                clients.spawn(h2_load(client.clone(), Arc::clone(&tally), pace()));
            }
        }
        tokio::time::sleep(Duration::from_secs_f64(0.04 + 0.1 * random.f64())).await;
        let report = soon("the end", app.sigterm()).await;
        while let Some(client) = soon("the end of the clients", clients.join_next()).await {
            client.unwrap();
        }
        assert!(!report.forced && report.requests_aborted == 0, "round {round}: {report:?}");
        assert!(tally.answered.load(Ordering::Relaxed) > 20, "round {round} had no load: {tally:?}");
        assert!(tally.failed.lock().unwrap().is_empty(), "round {round}: {tally:?}, {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_under_load_no_request_fails() {
    fifty_rounds(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_under_load_with_a_lame_duck_no_request_fails() {
    fifty_rounds(ms(100)).await;
}
