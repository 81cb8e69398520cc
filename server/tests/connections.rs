//! Connections: their deadlines, their cap, their first bytes, and what happens when there are no more descriptors.

mod common;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get as on_get;
use bytes::Bytes;
use common::{Gate, Http1, Http2, Raw, ms, on_loopback, requests, sample, until};
use mainspring_config::ByteSize;
use mainspring_observe::{Identity, log};
use mainspring_server::Config;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GET_HELLO: &str = "GET /hello HTTP/1.1\r\nhost: test\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/hello", on_get(async || "hello"))
}

/// Every deadline far away, so that a test that brings one near sees that one.
fn patient(config: &mut Config) {
    let long = Duration::from_secs(20).into();
    let http = &mut config.http;
    (http.first_byte_timeout, http.header_timeout, http.body_timeout) = (long, long, long);
    (http.request_timeout, http.idle_timeout) = (long, long);
}

/// Deadlines are looked at ten times a second, and never early.
#[track_caller]
fn within_ticks(deadline: Duration, since: Instant) {
    let took = since.elapsed();
    assert!(took >= deadline && took < deadline + ms(600), "{took:?} instead of {deadline:?}");
}

const TIMED_OUT: &str = "http_server_connections_rejected_total{reason=\"timeout\"}";
const UNREAD: &str = "http_server_connections_rejected_total{reason=\"unread\"}";
const CAPPED: &str = "http_server_connections_rejected_total{reason=\"cap\"}";

// Deadlines.

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_at_first_byte_timeout() {
    let app = on_loopback(hello(), |config| {
        patient(config);
        config.http.first_byte_timeout = ms(200).into();
    });
    let app = app.await;
    let since = Instant::now();
    let mut silent = Raw::connect(app.addr()).await;
    assert_eq!(silent.rest().await, "");
    within_ticks(ms(200), since);
    assert_eq!(sample(&app, TIMED_OUT).await, 1.0);
    until("no connections", async || sample(&app, "http_server_connections").await == 0.0).await;
}

#[tokio::test]
async fn half_a_head_is_a_408_at_header_timeout_however_slowly_it_trickles() {
    let app = on_loopback(hello(), |config| {
        patient(config);
        config.http.header_timeout = ms(400).into();
    });
    let app = app.await;
    for half in ["G", "P", "GET /hello HT", "GET /hello HTTP/1.1\r\nhost: test\r\nx-a: b\r\n"] {
        let since = Instant::now();
        let mut client = Raw::connect(app.addr()).await;
        client.send(half).await;
        client.reply().await.problem(408);
        within_ticks(ms(400), since);
        assert_eq!(client.rest().await, "");
    }
    // Bytes that keep coming buy no time.
    let since = Instant::now();
    let mut trickle = Raw::connect(app.addr()).await;
    let mut said = [0; 12];
    for byte in GET_HELLO.bytes().chain(std::iter::repeat(b'x')) {
        trickle.send([byte]).await;
        tokio::select! {
            read = trickle.stream.read_exact(&mut said) => {
                read.unwrap();
                break;
            }
            () = tokio::time::sleep(ms(15)) => {}
        }
        assert!(since.elapsed() < ms(2000), "a head that trickles in is never late");
    }
    assert_eq!(&said, b"HTTP/1.1 408");
    within_ticks(ms(400), since);
    assert_eq!(sample(&app, TIMED_OUT).await, 5.0);
}

#[tokio::test]
async fn a_second_head_has_its_deadline_too() {
    let app = on_loopback(hello(), |config| {
        patient(config);
        config.http.header_timeout = ms(200).into();
    });
    let app = app.await;
    let mut client = Raw::connect(app.addr()).await;
    client.send(GET_HELLO).await;
    assert_eq!(client.reply().await.status, 200);
    client.send("GET /he").await;
    client.reply().await.problem(408);
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_idle_timeout_and_not_counted_as_rejected() {
    let app = on_loopback(hello(), |config| {
        patient(config);
        config.http.idle_timeout = ms(300).into();
    });
    let app = app.await;
    let mut one = Http1::connect(app.addr()).await;
    let mut two = Http2::connect(app.addr()).await;
    assert_eq!(one.get("/hello").await.unwrap().text(), "hello");
    assert_eq!(two.get("/hello").await.unwrap().text(), "hello");
    let since = Instant::now();
    one.ended().await;
    within_ticks(ms(300), since);
    two.ended().await;
    within_ticks(ms(300), since);
    assert_eq!(sample(&app, TIMED_OUT).await, 0.0);
}

#[tokio::test]
async fn an_http2_client_that_never_asks_for_anything_is_closed_at_idle_timeout() {
    let app = on_loopback(hello(), |config| {
        patient(config);
        config.http.idle_timeout = ms(300).into();
    });
    let app = app.await;
    let since = Instant::now();
    let mut client = Raw::connect(app.addr()).await;
    client.send(PREFACE).await;
    client.send(SETTINGS).await;
    client.rest().await;
    // The gentle way first, which a dead peer does not answer.
    assert!(since.elapsed() < ms(2000), "{:?}", since.elapsed());
}

/// More than all the buffers on the way hold.
fn flood() -> Router {
    let chunk = Bytes::from(vec![b'x'; 256 * 1024]);
    let flood = async move || {
        let chunks = std::iter::repeat_n(chunk.clone(), 256).map(Ok::<_, std::convert::Infallible>);
        Body::from_stream(futures_util::stream::iter(chunks))
    };
    let block = async || Bytes::from(vec![b'x'; 24 * 1024 * 1024]);
    hello().route("/flood", on_get(flood)).route("/block", on_get(block))
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_at_idle_timeout() {
    let app = on_loopback(flood(), |config| {
        patient(config);
        config.http.idle_timeout = ms(300).into();
    });
    let app = app.await;
    for path in ["/flood", "/block"] {
        let mut deaf = Raw::connect(app.addr()).await;
        deaf.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        until("the connection", async || sample(&app, "http_server_connections").await == 1.0).await;
        until("its end", async || sample(&app, "http_server_connections").await == 0.0).await;
    }
    assert_eq!(requests(&app, "GET", "/flood", 200).await, 1.0);
    assert_eq!(sample(&app, UNREAD).await, 2.0);
}

#[tokio::test]
async fn an_http2_stream_that_is_never_read_is_reset_at_idle_timeout() {
    let app = on_loopback(flood(), |config| {
        patient(config);
        config.http.idle_timeout = ms(300).into();
    });
    let app = app.await;
    let client = Http2::connect(app.addr()).await;
    let mut sender = client.sender.clone();
    let deaf = sender.send_request(common::request("/flood")).await.unwrap();
    until("the stream to be given up", async || requests(&app, "GET", "/flood", 200).await == 1.0).await;
    assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
    common::read(deaf).await.expect_err("half a flood is no answer");
    assert_eq!(sample(&app, "http_server_active_requests").await, 0.0);
    assert_eq!(sample(&app, UNREAD).await, 1.0);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let app = on_loopback(flood(), |config| {
        patient(config);
        config.http.idle_timeout = ms(600).into();
    });
    let app = app.await;
    let mut slow = Raw::connect(app.addr()).await;
    slow.send("GET /block HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let head = slow.through("\r\n\r\n").await;
    assert!(head.contains("content-length: 25165824"), "{head}");
    // Twice as long as an idle connection may be, in all. The sockets' buffers hold so much that the connection may be
    // idle, to the server, while the last megabytes are read: they arrive all the same, and then it ends.
    for _ in 0..24 {
        slow.exactly(1024 * 1024).await;
        tokio::time::sleep(ms(50)).await;
    }
    assert_eq!(slow.rest().await, "");
    assert_eq!(requests(&app, "GET", "/block", 200).await, 1.0);
}

#[tokio::test]
async fn the_time_in_which_we_stood_still_ourselves_is_not_held_against_a_client() {
    let app = on_loopback(hello(), |config| {
        patient(config);
        let short = ms(300).into();
        (config.http.first_byte_timeout, config.http.header_timeout, config.http.idle_timeout) = (short, short, short);
    });
    let app = app.await;
    let mut idle = Http1::connect(app.addr()).await;
    assert_eq!(idle.get("/hello").await.unwrap().status, 200);
    let mut silent = Raw::connect(app.addr()).await;
    let mut half = Raw::connect(app.addr()).await;
    half.send(&GET_HELLO[..9]).await;
    until("all of them", async || sample(&app, "http_server_connections").await == 3.0).await;
    tokio::time::sleep(ms(50)).await;
    // This thread is the server's too: a handler that blocks does the same.
    std::thread::sleep(ms(1000));
    silent.send(GET_HELLO).await;
    half.send(&GET_HELLO[9..]).await;
    assert_eq!(silent.reply().await.text(), "hello");
    assert_eq!(half.reply().await.text(), "hello");
    assert_eq!(idle.get("/hello").await.unwrap().text(), "hello");
    let since = Instant::now();
    idle.ended().await;
    within_ticks(ms(300), since);
}

/// Some clients, curl 7.88 among them, take a reset in the middle of their body for a failure and show no answer.
#[tokio::test]
async fn an_http2_client_that_is_still_sending_when_it_is_refused_may_finish() {
    let app = on_loopback(hello(), |config| config.http.max_body = ByteSize::kib(1)).await;
    let stream = tokio::net::TcpStream::connect(app.addr()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let mut left: usize = 1 << 20;
    let request = Request::post("http://test/hello").header("content-length", left).body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let answer = common::soon("the answer", answer).await.unwrap();
    assert_eq!(answer.status(), 413);
    while left > 0 {
        body.reserve_capacity(left.min(1 << 16));
        let room = common::soon("room", std::future::poll_fn(|cx| body.poll_capacity(cx))).await;
        let room = room.expect("the stream was reset").unwrap().min(left);
        left -= room;
        body.send_data(vec![b'x'; room].into(), left == 0).unwrap();
    }
    let mut answer = answer.into_body();
    while let Some(data) = common::soon("the answer", answer.data()).await {
        data.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_is_still_sending_when_it_is_refused_is_not_met_by_a_reset() {
    let app = on_loopback(hello(), |config| config.http.max_body = ByteSize::kib(1)).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send(format!("POST /hello HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", 1 << 20)).await;
    client.reply().await.problem(413);
    for _ in 0..16 {
        client.send(vec![b'x'; 1 << 16]).await;
        tokio::time::sleep(ms(5)).await;
    }
    assert_eq!(client.rest().await, "");
}

// Limits.

#[tokio::test]
async fn one_connection_above_max_connections_is_a_503() {
    let app = on_loopback(hello(), |config| config.http.max_connections = 2).await;
    let mut first = Http1::connect(app.addr()).await;
    let second = Raw::connect(app.addr()).await;
    assert_eq!(first.get("/hello").await.unwrap().status, 200);
    let mut third = Raw::connect(app.addr()).await;
    let refused = third.reply().await;
    refused.problem(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(third.rest().await, "");
    assert_eq!(sample(&app, CAPPED).await, 1.0);
    // There is room again as soon as one has left.
    drop(second);
    until("room", async || sample(&app, "http_server_connections").await == 1.0).await;
    assert_eq!(Http1::connect(app.addr()).await.get("/hello").await.unwrap().status, 200);
    assert_eq!(sample(&app, CAPPED).await, 1.0);
}

#[tokio::test]
async fn a_head_above_max_header_bytes_is_a_431() {
    let app = on_loopback(hello(), |config| config.http.max_header_bytes = ByteSize::kib(8)).await;
    let head = |length: usize| format!("GET /hello HTTP/1.1\r\nhost: test\r\nx-long: {}\r\n\r\n", "x".repeat(length));
    let mut client = Raw::connect(app.addr()).await;
    client.send(head(8 * 1024 - 64)).await;
    assert_eq!(client.reply().await.status, 200);
    let mut client = Raw::connect(app.addr()).await;
    client.send(head(8 * 1024)).await;
    client.reply().await.problem(431);
    let mut client = Raw::connect(app.addr()).await;
    let many: String = (0..101).map(|n| format!("x-{n}: y\r\n")).collect();
    client.send(format!("GET /hello HTTP/1.1\r\n{many}\r\n")).await;
    client.reply().await.problem(431);
}

#[tokio::test]
async fn what_is_not_http_is_a_400() {
    let app = on_loopback(hello(), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("\x16\x03\x01 this is TLS\r\n\r\n").await;
    client.reply().await.problem(400);
    assert_eq!(client.rest().await, "");
}

// HTTP/2 by prior knowledge.

#[tokio::test]
async fn the_preface_is_known_in_whatever_pieces_it_comes() {
    let app = on_loopback(hello(), |_| {}).await;
    for cut in [1, 3, 14, 18, 23] {
        let mut client = Raw::connect(app.addr()).await;
        client.send(&PREFACE[..cut]).await;
        // The first piece has been read, and taken for neither protocol yet.
        until("the connection", async || sample(&app, "http_server_connections").await >= 1.0).await;
        tokio::time::sleep(ms(20)).await;
        client.send(&PREFACE[cut..]).await;
        client.send(SETTINGS).await;
        assert_eq!(first_settings(&mut client).await.len() % 6, 0);
    }
    // What only begins like it is HTTP/1.
    let mut client = Raw::connect(app.addr()).await;
    client.send("P").await;
    tokio::time::sleep(ms(20)).await;
    client.send("UT /hello HTTP/1.1\r\nhost: test\r\n\r\n").await;
    client.reply().await.problem(405);
}

/// The payload of the server's SETTINGS frame, which comes first.
async fn first_settings(client: &mut Raw) -> Vec<u8> {
    let header = client.exactly(9).await;
    assert_eq!(header[3..], [4, 0, 0, 0, 0, 0], "a SETTINGS frame comes first");
    client.exactly(usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2])).await
}

#[tokio::test]
async fn the_settings_frame_limits_streams_and_headers() {
    let app = on_loopback(hello(), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send(PREFACE).await;
    client.send(SETTINGS).await;
    let payload = first_settings(&mut client).await;
    let settings: Vec<(u16, u32)> = payload
        .chunks(6)
        .map(|s| (u16::from_be_bytes([s[0], s[1]]), u32::from_be_bytes([s[2], s[3], s[4], s[5]])))
        .collect();
    assert!(settings.contains(&(3, 100)), "MAX_CONCURRENT_STREAMS: {settings:?}");
    assert!(settings.contains(&(6, 64 * 1024)), "MAX_HEADER_LIST_SIZE: {settings:?}");
}

#[tokio::test]
async fn an_http2_connection_carries_many_requests_at_a_time() {
    let gate = Gate::new();
    let at_gate = gate.clone();
    let waits = async move || at_gate.pass().await;
    let app = on_loopback(hello().route("/waits", on_get(waits)), |_| {}).await;
    let client = Http2::connect(app.addr()).await;
    let all = futures_util::future::join_all((0..50).map(|_| client.get("/waits")));
    let (all, ()) = tokio::join!(all, async {
        gate.reached_by(50).await;
        assert_eq!(sample(&app, "http_server_connections").await, 1.0);
        gate.open();
    });
    assert!(all.into_iter().all(|answer| answer.unwrap().status == 200));
}

// Out of descriptors. The limit belongs to a process, so there is another one: this test, run again by itself.

const CHILD: &str = "CONNECTIONS_TEST_CHILD";
const DESCRIPTORS: usize = 80;
/// What the process takes for something else before it serves.
const LEFT: &str = "CONNECTIONS_TEST_LEFT";

#[tokio::test]
async fn a_process_without_descriptors_neither_spins_nor_dies_and_serves_when_it_has_some_again() {
    let name = "a_process_without_descriptors_neither_spins_nor_dies_and_serves_when_it_has_some_again";
    if std::env::var_os(CHILD).is_some() {
        return serve_until_stdin_closes().await;
    }
    // Something else than connections has taken all but these.
    let child = Child::start(name, Some(5)).await;
    let began = Instant::now();
    let mut served = Vec::new();
    let mut starved = loop {
        assert!(served.len() < DESCRIPTORS, "there is no limit");
        let mut client = Raw::connect(child.public).await;
        client.send(GET_HELLO).await;
        let answered = tokio::time::timeout(ms(500), client.through("hello")).await;
        match answered {
            Ok(_) => served.push(client),
            Err(_) => break client,
        }
    };
    let mut busy = 0;
    for _ in 0..100 {
        tokio::time::sleep(ms(15)).await;
        busy += u32::from(wants_to_run(child.process.id().unwrap()));
    }
    assert!(busy < 90, "in {busy} of 100 looks it wanted to run, while there was nothing to do");
    // Those that have a connection are served meanwhile, and whoever waited is when there is room.
    served[0].send(GET_HELLO).await;
    assert_eq!(served[0].reply().await.text(), "hello");
    served.clear();
    starved.through("hello").await;
    let public = format!("\"addr\":\"{}\"", child.public);
    let lines = child.end().await;
    let said: Vec<_> = lines.iter().filter(|line| line.contains("cannot accept connections")).collect();
    let most = 1 + began.elapsed().as_secs() / 10;
    assert!((1..=most).contains(&(said.len() as u64)), "not once in ten seconds: {said:?}");
    for part in ["\"listener\":\"public\"", &public, "ulimit -n"] {
        assert!(said[0].contains(part), "{}", said[0]);
    }
}

#[tokio::test]
async fn connections_leave_descriptors_for_the_probes() {
    if std::env::var_os(CHILD).is_some() {
        return serve_until_stdin_closes().await;
    }
    let child = Child::start("connections_leave_descriptors_for_the_probes", None).await;
    let mut silent = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        silent.push(Raw::connect(child.public).await);
    }
    // The last of them were told so, and that is after all before them were let in.
    silent.pop().unwrap().reply().await.problem(503);
    for probe in ["/livez", "/readyz"] {
        let mut client = Raw::connect(child.admin).await;
        client.send(&format!("GET {probe} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        assert_eq!(client.reply().await.status, 200, "{probe}");
    }
    drop(silent);
    let lines = child.end().await;
    let warnings: Vec<_> = lines.iter().filter(|line| line.contains("http.max_connections")).collect();
    assert_eq!(warnings.len(), 1, "{lines:?}");
    assert!(warnings[0].contains("\"descriptors\":80") && warnings[0].contains("ulimit -n"), "{}", warnings[0]);
    assert!(!lines.iter().any(|line| line.contains("cannot accept connections")), "{lines:?}");
}

/// A process with few descriptors.
struct Child {
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    before: Vec<String>,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Child {
    /// Runs the test `name` again, with `left` descriptors if that is to be seen to.
    async fn start(name: &str, left: Option<usize>) -> Self {
        let command = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" --exact \"$1\" --nocapture");
        let mut process = tokio::process::Command::new("sh");
        process.args(["-c", &command]).arg(std::env::current_exe().unwrap()).arg(name).env(CHILD, "1");
        if let Some(left) = left {
            process.env(LEFT, left.to_string());
        }
        let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut before = Vec::new();
        loop {
            let line = common::soon("the child's address", lines.next_line()).await.unwrap().expect("the child ended");
            if let Some((public, admin)) = line.strip_prefix("listening on ").and_then(|line| line.split_once(' ')) {
                let (public, admin) = (public.parse().unwrap(), admin.parse().unwrap());
                return Self { process, lines, before, public, admin };
            }
            before.push(line);
        }
    }

    /// Ends it, and answers what it has said.
    async fn end(mut self) -> Vec<String> {
        drop(self.process.stdin.take());
        assert!(common::soon("the child's end", self.process.wait()).await.unwrap().success());
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.before.push(line);
        }
        self.before
    }
}

async fn serve_until_stdin_closes() {
    let log = log::Config { format: log::Format::Json, ..log::Config::default() };
    let _log = mainspring_server::init(&log, &Identity::new("child", "1")).unwrap();
    let app = on_loopback(hello(), |_| {}).await;
    let left = std::env::var(LEFT).ok().map(|left| left.parse::<usize>().unwrap());
    let mut taken = Vec::new();
    if let Some(left) = left {
        taken.extend(std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()));
        taken.truncate(taken.len() - left);
    }
    println!("\nlistening on {} {}", app.addr(), app.admin_addr());
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await.unwrap().unwrap();
    drop(taken);
    assert!(!app.sigterm().await.forced);
}

/// Whether a thread of a process runs, or waits for a processor: what spins does so always, however busy the machine is.
fn wants_to_run(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().any(|thread| {
        // The name, in brackets, may hold anything; the state is behind it.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
    })
}
