//! What happens to a request: routes, ids, panics, timeouts, limits, odd but legal clients, and how each is counted.

#[path = "../common/mod.rs"]
mod common;

mod endings;
mod limits;
mod odd_clients;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request as Received;
use axum::http::{Method, Request, StatusCode};
use axum::routing::{get as on_get, post as on_post};
use common::{
    Gate, Http1, Http2, Raw, Reply, Witness, get, in_process, ms, on_loopback, problem, requests, soon, until,
};
use http_body_util::BodyExt;
use mainspring_observe::correlation;
use mainspring_server::testing::TestApp;
use mainspring_server::{Service, SimpleServer};
use tokio::time::Instant;

use endings::{half_a_body, waits_for_ever};

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

async fn echo(body: Bytes) -> Bytes {
    body
}

async fn panics() -> &'static str {
    panic!("the handler fell over")
}

fn hello() -> Router {
    Router::new().route("/hello", on_get(async || "hello")).route("/cats/{id}", on_get(async || "cat"))
}

// Routes.

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let app = in_process(hello(), |_| {}).await;
    let answer = app.request(get("/nothing")).await;
    problem(404, &answer.headers, &answer.body);
    assert_eq!(requests(&app, "GET", "__404__", 404).await, 1.0);
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_that_names_the_right_ones() {
    let app = in_process(hello(), |_| {}).await;
    let answer = app.request(Request::delete("/cats/7").body(Body::empty()).unwrap()).await;
    problem(405, &answer.headers, &answer.body);
    assert_eq!(answer.headers["allow"], "GET,HEAD");
    assert_eq!(requests(&app, "DELETE", "/cats/{id}", 405).await, 1.0);
}

#[tokio::test]
async fn what_a_service_answers_itself_is_left_alone() {
    let missing = async || (StatusCode::NOT_FOUND, "no such cat");
    let app = in_process(Router::new().route("/cats/{id}", on_get(missing)), |_| {}).await;
    let answer = app.request(get("/cats/9")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, "no such cat"));
    let app = in_process(hello().fallback(async || (StatusCode::NOT_FOUND, "try /hello")), |_| {}).await;
    assert_eq!(app.request(get("/nothing")).await.text(), "try /hello");
}

#[tokio::test]
async fn the_public_port_serves_the_services_routes_and_health_and_nothing_else() {
    let app = in_process(hello(), |_| {}).await;
    let healthz = app.request(get("/healthz")).await;
    assert_eq!((healthz.status, healthz.text()), (StatusCode::OK, "\"OK\""));
    assert_eq!(healthz.headers["content-type"], "application/json");
    let status = app.request(get("/status.txt")).await;
    assert!(status.text().starts_with("ok-plain-0.0.0-"), "{}", status.text());
    for path in ["/", "/metrics", "/livez", "/readyz", "/startupz", "/-/log", "/-/config", "/debug/pprof/profile"] {
        let answer = app.request(get(path)).await;
        problem(404, &answer.headers, &answer.body);
    }
}

#[tokio::test]
async fn health_moves_to_the_path_that_is_configured() {
    let app = in_process(hello(), |config| config.health.path = Some("/ping".to_owned())).await;
    assert!(app.request(get("/ping")).await.text().starts_with("ok-plain-"));
    assert_eq!(app.request(get("/healthz")).await.status, 404);
}

// Ids.

#[tokio::test]
async fn a_harmless_request_id_is_echoed_and_any_other_replaced() {
    let app = in_process(hello().route("/panics", on_get(panics)), |_| {}).await;
    for path in ["/hello", "/nothing", "/panics"] {
        let request = Request::get(path).header("x-request-id", "req-7.A_b").body(Body::empty()).unwrap();
        assert_eq!(app.request(request).await.headers["x-request-id"], "req-7.A_b");
        let request = Request::get(path).header("x-request-id", "two words").body(Body::empty()).unwrap();
        let made = app.request(request).await.headers["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(uuid::Uuid::parse_str(&made).unwrap().get_version_num(), 7);
        let other = app.request(get(path)).await.headers["x-request-id"].to_str().unwrap().to_owned();
        assert_ne!(made, other);
    }
}

#[tokio::test]
async fn a_trace_is_continued_in_every_poll_of_the_handler() {
    let show = async || {
        let first = correlation::current();
        tokio::task::yield_now().await;
        assert_eq!(correlation::current(), first);
        let trace = first.trace.unwrap();
        let id = String::from_utf8(first.request_id.unwrap().to_vec()).unwrap();
        format!("{} {id}", String::from_utf8_lossy(&trace.traceparent()))
    };
    let app = in_process(Router::new().route("/show", on_get(show)), |_| {}).await;
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::get("/show").header("traceparent", sent).header("x-request-id", "r1");
    let answer = app.request(request.body(Body::empty()).unwrap()).await;
    let (trace, id) = answer.text().split_once(' ').unwrap();
    assert_eq!(id, "r1");
    let parts: Vec<_> = trace.split('-').collect();
    assert_eq!((parts[1], parts[3]), ("0af7651916cd43dd8448eb211c80319c", "01"), "the caller's trace goes on");
    assert_ne!(parts[2], "b7ad6b7169203331", "in a span of its own");
    let broken = Request::get("/show").header("traceparent", "00-nonsense").body(Body::empty()).unwrap();
    assert!(!app.request(broken).await.text().contains("nonsense"), "a broken one is ignored");
    assert_eq!(correlation::current(), correlation::Correlation::default());
}

// The access log.

#[tokio::test]
async fn the_access_log_says_how_each_request_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = mainspring_observe::log::Config {
        access: serde_json::from_value(path.to_str().unwrap().into()).unwrap(),
        ..Default::default()
    };
    let identity = mainspring_observe::Identity::new("plain", "1.2.3");
    // Process-wide: tests that start later write to the same file, under other routes than these.
    let guard = mainspring_server::init(&log, &identity).unwrap();
    let (router, gate, dropped) = waits_for_ever();
    let fails = async || StatusCode::BAD_GATEWAY;
    let slow = async || std::future::pending::<()>().await;
    let router = Router::new().nest("/logged", router).route("/logged/panics", on_get(panics));
    let router = router.route("/logged/fails", on_get(fails)).route("/logged/slow", on_get(slow));
    let opened = Gate::new();
    opened.open();
    let router = router.route("/logged/half", on_get(async move || half_a_body(&opened)));
    let app = on_loopback(router, |config| config.http.request_timeout = ms(100).into()).await;
    let client = Http2::connect(app.addr()).await;
    for path in ["/logged/hello?secret=1", "/logged/panics", "/logged/fails", "/logged/slow", "/logged/half"] {
        let _ = client.get(path).await;
    }
    let mut leaver = Raw::connect(app.addr()).await;
    leaver.send("GET /logged/waits HTTP/1.1\r\nhost: test\r\nuser-agent: \"odd\"\\\r\n\r\n").await;
    gate.reached_by(1).await;
    drop(leaver);
    soon("the end of the handler", dropped).await.unwrap();
    until("it to be counted", async || requests(&app, "GET", "/logged/waits", 499).await == 1.0).await;
    tokio::task::spawn_blocking(move || assert!(guard.flush(Duration::from_secs(5)))).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcome = |route: &str| {
        let of_route: Vec<_> = lines.iter().filter(|line| line["fields"]["route"] == route).collect();
        assert_eq!(of_route.len(), 1, "{route} in {text}");
        let fields = &of_route[0]["fields"];
        (fields["status"].as_u64().unwrap(), fields["outcome"].as_str().unwrap().to_owned())
    };
    assert_eq!(outcome("/logged/hello"), (200, "ok".to_owned()));
    assert_eq!(outcome("/logged/panics"), (500, "panic".to_owned()));
    assert_eq!(outcome("/logged/fails"), (502, "error".to_owned()));
    assert_eq!(outcome("/logged/slow"), (504, "timeout".to_owned()));
    assert_eq!(outcome("/logged/half"), (200, "panic".to_owned()));
    assert_eq!(outcome("/logged/waits"), (499, "cancelled".to_owned()));
    let hello = lines.iter().find(|line| line["fields"]["route"] == "/logged/hello").unwrap();
    assert_eq!((&hello["target"], &hello["fields"]["path"]), (&"access".into(), &"/logged/hello".into()));
    assert_eq!((&hello["fields"]["proto"], &hello["fields"]["bytes_out"]), (&"HTTP/2".into(), &5.into()));
    assert!(hello["request_id"].is_string() && hello["trace_id"].is_string(), "{hello}");
    let waits = lines.iter().find(|line| line["fields"]["route"] == "/logged/waits").unwrap();
    assert_eq!(waits["fields"]["user_agent"], "\"odd\"\\");
}
