//! SIGTERM, with every shape of client attached.

#[path = "../common/mod.rs"]
mod common;

mod busy;
mod goaway;
mod idle;
mod load;
mod watchdog;
mod websockets;

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
