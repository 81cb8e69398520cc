//! Clients that mean harm: they are turned away or bounded, and nobody else notices.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{any, get as on_get};
use common::{Http1, Http2, Raw, ms, on_loopback, sample, soon, until};
use mainspring_server::testing::TestApp;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET /` of `test`, in HPACK.
const GET: &[u8] = b"\x82\x86\x84\x41\x04test";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const REJECTED: &str = "http_server_connections_rejected_total";

fn hello() -> Router {
    Router::new().route("/", on_get(async || "hello"))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends as much as the server takes; a server that closes in the middle is what is hoped for.
async fn flood(client: &mut Raw, bytes: &[u8]) {
    let _ = tokio::time::timeout(Duration::from_secs(10), client.stream.write_all(bytes)).await;
}

/// How many descriptors this process may open beside those that it has.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(1024) - 200
}

// HTTP/2.

#[tokio::test]
async fn a_client_that_resets_what_it_asks_for_is_sent_away() {
    let app = on_loopback(hello(), |_| {}).await;
    let other = Http2::connect(app.addr()).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send(PREFACE).await;
    let pairs = (0..5_000_u32).flat_map(|n| {
        let stream = 2 * n + 1;
        [frame(HEADERS, 5, stream, GET), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    flood(&mut client, &pairs.collect::<Vec<u8>>()).await;
    let last = client.rest().await;
    assert!(last.contains("too_many_resets"), "{last:?}");
    counted(&app, "reset_flood", 1.0).await;
    assert_eq!(other.get("/").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_head_that_never_ends_over_http2_ends_its_connection() {
    let app = on_loopback(hello(), |_| {}).await;
    let other = Http2::connect(app.addr()).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send(PREFACE).await;
    let mut bytes = frame(HEADERS, 1, 1, GET);
    // A literal field, 8 KiB long, again and again.
    let field = [&b"\x00\x01x\x7f\x81\x3f"[..], &[b'y'; 8192]].concat();
    for _ in 0..2_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &field));
    }
    flood(&mut client, &bytes).await;
    client.rest().await;
    counted(&app, "continuation_flood", 1.0).await;
    assert_eq!(other.get("/").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn floods_of_settings_and_pings_whose_answers_are_read_end_their_connections() {
    let app = on_loopback(hello(), |_| {}).await;
    let other = Http2::connect(app.addr()).await;
    for (n, frame) in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])].into_iter().enumerate() {
        let mut client = Raw::connect(app.addr()).await;
        client.send(PREFACE).await;
        let (mut read, mut write) = client.stream.into_split();
        let mut reading = JoinSet::new();
        reading.spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        let many = frame.repeat(1000);
        let ended = async { while write.write_all(&many).await.is_ok() {} };
        soon("the end of the flood", ended).await;
        let _ = soon("the end of the connection", reading.join_next()).await;
        counted(&app, "control_flood", n as f64 + 1.0).await;
        assert_eq!(other.get("/").await.unwrap().text(), "hello");
    }
}

/// Clients that are not hostile measure their round trips, and change their settings.
#[tokio::test]
async fn pings_between_requests_harm_nobody() {
    let app = on_loopback(hello(), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send(PREFACE).await;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(300);
    let mut answers = 0;
    for n in 0..10_u32 {
        client.send(frame(HEADERS, 5, 2 * n + 1, GET)).await;
        client.send(&pings).await;
        while answers < 300 * (n + 1) {
            let head = client.exactly(9).await;
            client.exactly(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize).await;
            answers += u32::from(head[3..5] == [PING, 1]);
        }
    }
    assert_eq!(sample(&app, &format!("{REJECTED}{{reason=\"control_flood\"}}")).await, 0.0);
}

#[tokio::test]
async fn a_client_that_never_opens_its_window_loses_its_stream_and_nothing_else() {
    let app = on_loopback(hello(), |config| config.http.idle_timeout = ms(500).into()).await;
    let mut client = Raw::connect(app.addr()).await;
    // SETTINGS_INITIAL_WINDOW_SIZE = 0, instead of the empty SETTINGS at the end of the preface.
    client.send(&PREFACE[..PREFACE.len() - 9]).await;
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    client.send(frame(HEADERS, 5, 1, GET)).await;
    counted(&app, "unread", 1.0).await;
    until("no request", async || sample(&app, "http_server_active_requests").await == 0.0).await;
}

async fn counted(app: &TestApp, reason: &str, times: f64) {
    let name = format!("{REJECTED}{{reason=\"{reason}\"}}");
    until(&format!("{times} of {reason}"), async || sample(app, &name).await == times).await;
}

// HTTP/1.

/// How long others wait meanwhile is measured: `cargo run -p mainspring-benches --release -- hostile`.
#[tokio::test]
async fn two_thousand_connections_that_trickle_are_closed_in_time_and_cost_others_nothing() {
    let app = on_loopback(hello(), |config| config.http.header_timeout = ms(1500).into()).await;
    let many = 2_000.min(descriptors() / 2);
    let mut good = Http1::connect(app.addr()).await;
    let before = resident();
    let mut slow = Vec::new();
    for _ in 0..many {
        let mut client = Raw::connect(app.addr()).await;
        client.send("GET / HTTP/1.1\r\nx-trickle: ").await;
        slow.push(client);
    }
    let began = Instant::now();
    until("all of them to be closed", async || {
        assert_eq!(good.get("/").await.unwrap().text(), "hello");
        if began.elapsed() < ms(1000) {
            slow.iter().for_each(|client| drop(client.stream.try_write(b"x")));
        }
        tokio::time::sleep(ms(20)).await;
        sample(&app, &format!("{REJECTED}{{reason=\"timeout\"}}")).await >= many as f64
    })
    .await;
    // Both ends are in this process, and so are other tests.
    let each = resident().saturating_sub(before) / many;
    assert!(each < 64, "{each} KiB for a connection");
    // Generous: this machine does other things as well.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    for mut client in slow {
        client.reply().await.problem(408);
        assert_eq!(client.rest().await, "");
    }
    assert_eq!(good.get("/").await.unwrap().text(), "hello");
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Sends one odd request with another one behind it. Answers the first status; the second must never be taken for a
/// request.
async fn odd(request: &[u8]) -> u16 {
    let smuggled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&smuggled);
    let router = Router::new()
        .route("/", any(async |body: Bytes| format!("{}", body.len())))
        .route("/smuggled", any(async move || counted.fetch_add(1, Ordering::SeqCst).to_string()));
    let app = on_loopback(router, |config| config.http.body_timeout = ms(300).into()).await;
    let mut client = Raw::connect(app.addr()).await;
    let mut bytes = request.to_vec();
    bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
    flood(&mut client, &bytes).await;
    let answer = soon("the end of the connection", client.rest()).await;
    let shown = String::from_utf8_lossy(request).chars().take(200).collect::<String>();
    assert_eq!(smuggled.load(Ordering::SeqCst), 0, "two requests out of one: {shown:?}");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no answer to {shown:?}: {answer:?}"))
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let chunked = "transfer-encoding: chunked\r\n";
    for (what, head, body) in [
        ("two lengths", "content-length: 0\r\ncontent-length: 5\r\n".to_owned(), ""),
        ("a list of lengths", "content-length: 0, 5\r\n".to_owned(), ""),
        ("a signed length", "content-length: +0\r\n".to_owned(), ""),
        ("a negative length", "content-length: -1\r\n".to_owned(), ""),
        ("an unknown coding", "transfer-encoding: xchunked\r\n".to_owned(), "0\r\n\r\n"),
        ("chunked, but not last", "transfer-encoding: chunked, identity\r\n".to_owned(), "0\r\n\r\n"),
        ("a bad chunk", chunked.to_owned(), "zz\r\n\r\n"),
        ("a chunk size that overflows", chunked.to_owned(), "fffffffffffffffff\r\n\r\n"),
        ("a folded line", "x-folded: a\r\n b\r\n".to_owned(), ""),
        ("a bare CR", "x-bare: a\rb\r\n".to_owned(), ""),
        ("a NUL", "x-nul: a\0b\r\n".to_owned(), ""),
        ("a space before the colon", "x-space : a\r\n".to_owned(), ""),
        ("a name with a space", "x space: a\r\n".to_owned(), ""),
    ] {
        let status = odd(format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n{body}").as_bytes()).await;
        assert!((400..500).contains(&status), "{what}: {status}");
    }
}

#[tokio::test]
async fn a_body_in_a_coding_that_is_not_known_is_refused_and_the_connection_closed() {
    for (codings, expected) in [
        ("transfer-encoding: gzip, chunked\r\n", 501),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 501),
        ("transfer-encoding: chunked, chunked\r\n", 400),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", 400),
        ("transfer-encoding: Chunked\r\nconnection: close\r\n", 200),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{codings}\r\n0\r\n\r\n");
        assert_eq!(odd(request.as_bytes()).await, expected, "{codings:?}");
    }
}

/// The specification has a server either refuse it or believe the coding (RFC 9112 §6.3); hyper does the latter and hides
/// the length. The connection has to be closed either way.
#[tokio::test]
async fn of_a_length_and_a_coding_the_coding_counts_and_the_connection_is_closed() {
    for both in
        ["content-length: 5\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"]
    {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{both}\r\n0\r\n\r\n");
        assert_eq!(odd(request.as_bytes()).await, 200);
    }
}

#[tokio::test]
async fn too_many_headers_and_odd_targets_are_refused_and_the_connection_closed() {
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "x".repeat(1024 * 1024));
    assert_eq!(odd(long.as_bytes()).await, 431);
    let many: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(odd(format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes()).await, 431);
    for target in ["/ /smuggled", "http://", "/\u{1}"] {
        let status = odd(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
        assert!((400..500).contains(&status), "{target:?}: {status}");
    }
}
