//! The health answers of the public listener, word for word.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get as on_get;
use common::{Http1, config, get, in_process, ms, server, soon, until};
use mainspring_server::config::{HealthKind, LameDuck};
use mainspring_server::testing::TestApp;
use mainspring_server::{Phase, SimpleServer};

fn hello() -> Router {
    Router::new().route("/hello", on_get(async || "hello"))
}

/// With a lame duck that lasts until the test is over.
fn long(kind: HealthKind) -> SimpleServer {
    let config = config(|config| {
        config.health.kind = kind;
        config.shutdown.lame_duck = LameDuck(Some(Duration::from_secs(10).into()));
    });
    server(config, hello())
}

/// An instance's name is made anew for each run.
fn without_instance(text: &str) -> String {
    let (name, instance) = text.rsplit_once('-').unwrap();
    assert!(instance.len() == 16 && instance.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    name.to_owned()
}

#[tokio::test(start_paused = true)]
async fn simple_and_esx_say_ok_until_a_stop_is_requested() {
    for kind in [HealthKind::Simple, HealthKind::Esx] {
        let app = TestApp::in_process(long(kind)).await;
        let healthz = app.request(get("/healthz")).await;
        assert_eq!((healthz.status.as_u16(), healthz.text()), (200, "\"OK\""));
        assert_eq!(healthz.headers["content-type"], "application/json");
        let status = app.request(get("/status.txt")).await;
        assert_eq!((status.status.as_u16(), &*without_instance(status.text())), (200, "ok-plain-0.0.0"));
        assert_eq!(status.headers["content-type"], "text/plain; charset=utf-8");
        let head = app.request(Request::head("/status.txt").body(Body::empty()).unwrap()).await;
        assert_eq!((head.status.as_u16(), head.text()), (200, ""));
        let post = app.request(Request::post("/status.txt").body(Body::empty()).unwrap()).await;
        assert_eq!(post.status, 405);
    }
    let stopping = TestApp::in_process(long(HealthKind::Simple)).await.begin_sigterm();
    until("the lame duck", async || stopping.phase() == Phase::LameDuck).await;
    let healthz = stopping.request(get("/healthz")).await;
    assert_eq!((healthz.status.as_u16(), healthz.text()), (503, "\"stopping\""));
    let status = stopping.request(get("/status.txt")).await;
    assert_eq!((status.status.as_u16(), status.text()), (503, "service unavailable"));
    assert_eq!(stopping.request(get("/hello")).await.status, 200, "everything is still served");
}

#[tokio::test]
async fn a_configured_path_takes_the_place_of_both() {
    let app = in_process(hello(), |config| config.health.path = Some("/up".to_owned())).await;
    assert_eq!(without_instance(app.request(get("/up")).await.text()), "ok-plain-0.0.0");
    assert_eq!(app.request(get("/healthz")).await.status, 404);
}

#[tokio::test]
async fn a_path_that_the_service_serves_itself_is_left_to_it() {
    let own = hello().route("/healthz", on_get(async || "mine"));
    let app = in_process(own, |_| {}).await;
    assert_eq!(app.request(get("/healthz")).await.text(), "mine");
    assert_eq!(without_instance(app.request(get("/status.txt")).await.text()), "ok-plain-0.0.0");
}

#[tokio::test(start_paused = true)]
async fn custom_asks_the_programs_own_handler_until_a_stop_is_requested() {
    let well = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&well);
    let handler = on_get(async move || match asked.load(Ordering::SeqCst) {
        true => (StatusCode::OK, "fine"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the disk is full"),
    });
    let app = TestApp::in_process(long(HealthKind::Custom).health(handler)).await;
    for path in ["/healthz", "/status.txt"] {
        assert_eq!(app.request(get(path)).await.text(), "fine");
    }
    well.store(false, Ordering::SeqCst);
    let answer = app.request(get("/healthz")).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (503, "the disk is full"));
    well.store(true, Ordering::SeqCst);
    let stopping = app.begin_sigterm();
    until("the lame duck", async || stopping.phase() == Phase::LameDuck).await;
    assert_eq!(stopping.request(get("/healthz")).await.status, 503);
}

#[tokio::test]
async fn custom_without_a_handler_is_an_error_of_the_configuration() {
    let config = config(|config| {
        config.health.kind = HealthKind::Custom;
        config.http.addr = ([127, 0, 0, 1], 0).into();
        config.admin.addr.0 = None;
    });
    let error = server(config, hello()).bind().unwrap_err();
    assert_eq!(error.code(), 78);
    assert!(error.to_string().contains("SimpleServer::health"), "{error}");
}

/// How long the lame duck lasts after `polls` requests of the health path by one client, which goes on polling if it is
/// told to.
async fn lame_duck(path: &str, polls: u32, goes_on: bool) -> Duration {
    let config = config(|config| {
        config.health.kind = HealthKind::Esx;
        config.health.esx.settle = ms(300).into();
        config.health.esx.interval = ms(100).into();
        config.health.esx.missed = 30;
        config.shutdown.lame_duck = LameDuck(None);
    });
    let app = TestApp::on_loopback(server(config, hello())).await;
    let mut balancer = Http1::connect(app.addr()).await;
    for _ in 0..polls {
        assert_eq!(balancer.get(path).await.unwrap().status, 200);
        tokio::time::sleep(ms(20)).await;
    }
    let stopping = app.begin_sigterm();
    let began = tokio::time::Instant::now();
    until("the lame duck to end", async || {
        if goes_on && let Ok(answer) = balancer.get(path).await {
            assert_eq!((answer.status, answer.text()), (503, "service unavailable"));
            // It is told to come on another connection.
        }
        stopping.phase() > Phase::LameDuck
    })
    .await;
    let took = began.elapsed();
    soon("the end", stopping.ended()).await;
    took
}

#[tokio::test]
async fn esx_waits_for_the_load_balancers_that_poll_and_for_nobody_else() {
    assert!(lame_duck("/status.txt", 3, true).await >= ms(300), "told, and given time to act");
    // Generous: what matters is that it is far from the three seconds that a poller is waited for.
    assert!(lame_duck("/status.txt?deployer", 3, false).await < ms(2000), "no load balancer");
    assert!(lame_duck("/status.txt", 0, false).await < ms(2000), "nobody polls");
    assert!(lame_duck("/status.txt", 3, false).await >= ms(2000), "not told yet, so waited for");
}
