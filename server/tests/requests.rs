//! What happens to a request: routes, ids, panics, timeouts, limits, odd but legal clients, and how each is counted.

mod common;

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

// Panics.

#[tokio::test]
async fn a_panic_in_a_handler_is_a_500_and_the_connection_goes_on() {
    let app = on_loopback(hello().route("/panics", on_get(panics)), |_| {}).await;
    let counted = common::sample(&app, "panics_total{where=\"handler\"}").await;
    let mut client = Http1::connect(app.addr()).await;
    let said = client.get("/panics").await.unwrap().problem(500);
    assert!(!said.to_string().contains("fell over"), "what a panic says is for the log: {said}");
    assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
    assert_eq!(requests(&app, "GET", "/panics", 500).await, 1.0);
    assert!(common::sample(&app, "panics_total{where=\"handler\"}").await > counted);
    let client = Http2::connect(app.addr()).await;
    client.get("/panics").await.unwrap().problem(500);
    assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
}

/// A body that panics behind its first half, once the gate is open.
fn half_a_body(gate: &Gate) -> Body {
    let gate = gate.clone();
    let falls_over = async move {
        gate.pass().await;
        panic!("the body fell over")
    };
    common::parts_then(&["half of ", "the answer"], falls_over)
}

#[tokio::test]
async fn a_panic_in_a_streaming_body_never_looks_like_an_end_over_http1() {
    let gate = Gate::new();
    let at_gate = gate.clone();
    let app = on_loopback(hello().route("/half", on_get(async move || half_a_body(&at_gate))), |_| {}).await;
    let counted = common::sample(&app, "panics_total{where=\"response_body\"}").await;
    let mut bystander = Http1::connect(app.addr()).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET /half HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let answer = client.through("the answer\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("transfer-encoding: chunked"), "{answer}");
    gate.open();
    assert_eq!(client.rest().await, "", "the last chunk, which would be an end, never comes");
    assert!(common::sample(&app, "panics_total{where=\"response_body\"}").await > counted);
    assert_eq!(bystander.get("/hello").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_panic_in_a_streaming_body_resets_its_own_stream_over_http2() {
    let (half, whole) = (Gate::new(), Gate::new());
    let (at_half, at_whole) = (half.clone(), whole.clone());
    let waits = async move || {
        at_whole.pass().await;
        "patience"
    };
    let router = hello().route("/half", on_get(async move || half_a_body(&at_half))).route("/waits", on_get(waits));
    let app = on_loopback(router, |_| {}).await;
    let client = Http2::connect(app.addr()).await;
    let neighbour = async { client.get("/waits").await.unwrap().body };
    let meanwhile = async {
        whole.reached_by(1).await;
        let (broken, ()) = tokio::join!(client.get("/half"), async {
            half.reached_by(1).await;
            half.open();
        });
        let broken = broken.expect_err("half an answer is no answer").to_string();
        assert!(broken.contains("body"), "the head had come: {broken}");
        whole.open();
    };
    let (neighbour, ()) = tokio::join!(neighbour, meanwhile);
    assert_eq!(neighbour, "patience");
    assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
}

// Timeouts.

struct Slow;

impl Service for Slow {
    const NAME: &'static str = "slow";
    const UNTIMED: &'static [&'static str] = &["/poll"];

    fn routes(self: Arc<Self>) -> Router {
        let hour = async || {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            "at last"
        };
        Router::new().route("/slow", on_get(hour)).route("/poll", on_get(hour))
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_a_504_unless_its_route_is_exempt() {
    let app = TestApp::in_process(SimpleServer::new(common::config(|_| {})).register(Slow)).await;
    let start = Instant::now();
    let answer = app.request(get("/slow")).await;
    problem(504, &answer.headers, &answer.body);
    assert!(start.elapsed() >= Duration::from_secs(15) && start.elapsed() < ms(15_010), "{:?}", start.elapsed());
    assert_eq!(requests(&app, "GET", "/slow", 504).await, 1.0);
    let start = Instant::now();
    assert_eq!(app.request(get("/poll")).await.text(), "at last");
    assert!(start.elapsed() >= Duration::from_secs(3600));
}

#[tokio::test]
async fn a_response_that_takes_too_long_is_broken_off() {
    let stalls = async || common::parts_then(&["some"], std::future::pending());
    let app = on_loopback(hello().route("/stalls", on_get(stalls)), |config| {
        config.http.request_timeout = ms(100).into();
    });
    let app = app.await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET /stalls HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.ends_with("some\r\n"), "the last chunk is missing: {answer}");
    assert!(Http2::connect(app.addr()).await.get("/stalls").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_has_no_timeout() {
    let events = async || {
        let hour = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Some("data: two\n\n")
        };
        ([("content-type", "text/event-stream")], common::parts_then(&["data: one\n\n"], hour))
    };
    let app = in_process(Router::new().route("/events", on_get(events)), |_| {}).await;
    assert_eq!(app.request(get("/events")).await.text(), "data: one\n\ndata: two\n\n");
}

// Limits.

#[tokio::test]
async fn above_max_in_flight_requests_are_shed_and_health_still_answers() {
    let gate = Gate::new();
    let at_gate = gate.clone();
    let waits = async move || at_gate.pass().await;
    let app = on_loopback(hello().route("/waits", on_get(waits)), |config| config.http.max_in_flight = 2).await;
    let (first, second) = (Http2::connect(app.addr()).await, Http2::connect(app.addr()).await);
    let held = async { tokio::join!(first.get("/waits"), second.get("/waits")) };
    let meanwhile = async {
        gate.reached_by(2).await;
        let shed = app.request(get("/hello")).await;
        problem(503, &shed.headers, &shed.body);
        assert_eq!(shed.headers["retry-after"], "1");
        assert_eq!(app.request(get("/healthz")).await.status, 200);
        assert_eq!(app.request(get("/status.txt")).await.status, 200);
        assert_eq!(common::sample(&app, "http_server_active_requests").await, 2.0);
        gate.open();
    };
    let ((first, second), ()) = tokio::join!(held, meanwhile);
    assert_eq!((first.unwrap().status, second.unwrap().status), (200, 200));
    assert_eq!(app.request(get("/hello")).await.status, 200);
    assert_eq!(common::sample(&app, "http_server_active_requests").await, 0.0);
}

/// The same body read by the kit's extractor, by axum's own, and raw by handlers that answer an error of their own.
fn readers() -> Router {
    let raw = async |request: Received| match request.into_body().collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    };
    let rough = async |request: Received| match to_bytes(request.into_body(), usize::MAX).await {
        Ok(body) => Ok(body),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    };
    let ours = async |body: mainspring_web::Json<serde_json::Value>| body.0.to_string();
    let axums = async |body: axum::Json<serde_json::Value>| body.0.to_string();
    Router::new()
        .route("/bytes", on_post(echo))
        .route("/string", on_post(async |body: String| body))
        .route("/raw", on_post(raw))
        .route("/rough", on_post(rough))
        .route("/json", on_post(ours))
        .route("/axum-json", on_post(axums))
}

const READERS: [&str; 6] = ["/bytes", "/string", "/raw", "/rough", "/json", "/axum-json"];

#[tokio::test]
async fn a_body_above_the_limit_is_a_413_that_names_the_limit_whoever_reads_it() {
    let app = on_loopback(readers(), |config| config.http.max_body = mainspring_config::ByteSize::kib(1)).await;
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for path in READERS {
        let fits = app.request(post(path, text(1024))).await;
        assert_eq!((fits.status.as_u16(), fits.body.len()), (200, 1024), "{path}");
        // A length that is declared is refused before the handler runs, one that is not as soon as it is exceeded.
        let mut declared = Raw::connect(app.addr()).await;
        let head = "host: test\r\ncontent-type: application/json\r\n";
        declared.send(format!("POST {path} HTTP/1.1\r\n{head}content-length: 1025\r\n\r\n")).await;
        let said = declared.reply().await.problem(413);
        assert_eq!(said["limit"], 1024, "{path}: {said}");
        let mut chunked = Raw::connect(app.addr()).await;
        chunked.send(format!("POST {path} HTTP/1.1\r\n{head}transfer-encoding: chunked\r\n\r\n")).await;
        chunked.send(format!("258\r\n\"{}\r\n258\r\n{}\r\n", "x".repeat(599), "x".repeat(600))).await;
        let said = chunked.reply().await.problem(413);
        assert_eq!(said["limit"], 1024, "{path}: {said}");
    }
}

#[tokio::test]
async fn a_limit_above_axums_own_is_the_one_that_counts() {
    let app = in_process(readers(), |config| config.http.max_body = mainspring_config::ByteSize::mib(4)).await;
    let body = format!("\"{}\"", "x".repeat(3 * 1024 * 1024));
    for path in READERS {
        assert_eq!(app.request(post(path, body.clone())).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408_whoever_reads_it() {
    let app = on_loopback(readers(), |config| config.http.body_timeout = ms(100).into()).await;
    for path in READERS {
        let mut client = Raw::connect(app.addr()).await;
        let head = "host: test\r\ncontent-type: application/json\r\ncontent-length: 10";
        client.send(format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n\"abc")).await;
        client.reply().await.problem(408);
        assert_eq!(client.rest().await, "", "{path}: nothing can follow half a body");
    }
}

#[tokio::test]
async fn a_hundred_thousand_random_paths_and_methods_make_two_series() {
    let app = in_process(hello(), |_| {}).await;
    let series = async || {
        let text = app.admin(get("/metrics")).await.text().to_owned();
        text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count")).count()
    };
    assert_eq!(app.request(get("/hello")).await.status, 200);
    let before = series().await;
    let mut random = fastrand::Rng::with_seed(7);
    for n in 0..100_000 {
        let word: String = std::iter::repeat_with(|| random.uppercase()).take(6).collect();
        let method = if n % 2 == 0 { Method::GET } else { Method::from_bytes(word.as_bytes()).unwrap() };
        let request = Request::builder().method(method).uri(format!("/{word}/{n}")).body(Body::empty()).unwrap();
        assert_eq!(app.request(request).await.status, 404);
    }
    assert_eq!(series().await - before, 2);
    assert_eq!(requests(&app, "GET", "__404__", 404).await, 50_000.0);
    assert_eq!(requests(&app, "_OTHER", "__404__", 404).await, 50_000.0);
}

// Odd but legal clients.

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_when_its_body_is_wanted() {
    let app = on_loopback(readers().merge(hello()), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    let head = "host: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    client.send(format!("POST /bytes HTTP/1.1\r\n{head}")).await;
    assert_eq!(client.through("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.reply().await.text(), "hello");
    // Not wanted: refused without asking for the body first.
    let mut client = Raw::connect(app.addr()).await;
    client.send("POST /bytes HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n").await;
    client.reply().await.problem(413);
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let app = on_loopback(hello(), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("HEAD /hello HTTP/1.1\r\nhost: test\r\n\r\nGET /hello HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let head = Reply::parse(&client.through("\r\n\r\n").await);
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    assert_eq!(client.reply().await.text(), "hello", "the next answer follows at once");
    assert_eq!(requests(&app, "HEAD", "/hello", 200).await, 1.0);
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let app =
        on_loopback(hello().route("/half", on_get(async || common::parts_then(&["a", "b"], async { None }))), |_| {});
    let app = app.await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET /hello HTTP/1.0\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET /half HTTP/1.0\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(!answer.contains("chunked") && answer.ends_with("\r\n\r\nab"), "{answer}");
}

#[tokio::test]
async fn forty_pipelined_requests_are_answered_in_order() {
    let number = async |axum::extract::Path(n): axum::extract::Path<u32>| {
        // Later ones would be faster.
        tokio::time::sleep(ms(u64::from(40 - n) / 8)).await;
        n.to_string()
    };
    let app = on_loopback(Router::new().route("/{n}", on_get(number)), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    let all: String = (0..40).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: test\r\n\r\n")).collect();
    client.send(all).await;
    for n in 0..40 {
        assert_eq!(client.reply().await.text(), n.to_string());
    }
    assert_eq!(requests(&app, "GET", "/{n}", 200).await, 40.0);
}

#[tokio::test]
async fn an_absolute_target_leads_to_its_route() {
    let app = on_loopback(hello(), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET http://example.com/cats/7?x=1 HTTP/1.1\r\nhost: example.com\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "cat");
    assert_eq!(requests(&app, "GET", "/cats/{id}", 200).await, 1.0);
}

// Clients that leave.

fn waits_for_ever() -> (Router, Gate, tokio::sync::oneshot::Receiver<()>) {
    let gate = Gate::new();
    let (witness, dropped) = Witness::new();
    let (at_gate, witness) = (gate.clone(), Arc::new(std::sync::Mutex::new(Some(witness))));
    let waits = async move || {
        let _witness = witness.lock().unwrap().take();
        at_gate.pass().await;
    };
    (hello().route("/waits", on_get(waits)), gate, dropped)
}

#[tokio::test]
async fn the_handler_of_a_client_that_left_is_dropped_and_counted_as_499() {
    let (router, gate, dropped) = waits_for_ever();
    let app = on_loopback(router, |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET /waits HTTP/1.1\r\nhost: test\r\n\r\n").await;
    gate.reached_by(1).await;
    drop(client);
    soon("the end of the handler", dropped).await.unwrap();
    until("it to be counted", async || requests(&app, "GET", "/waits", 499).await == 1.0).await;
    assert_eq!(common::sample(&app, "http_server_active_requests").await, 0.0);
}

#[tokio::test]
async fn the_handlers_of_an_http2_client_that_left_are_dropped_and_counted_as_499() {
    let (router, gate, dropped) = waits_for_ever();
    let app = on_loopback(router, |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    for stream in [1, 3] {
        // HEADERS, the whole request: GET http /waits.
        client.send(&[&[0, 0, 10, 1, 5, 0, 0, 0, stream, 0x82, 0x86, 4, 6], &b"/waits"[..]].concat()).await;
    }
    gate.reached_by(2).await;
    drop(client);
    soon("the end of the handler", dropped).await.unwrap();
    until("both to be counted", async || requests(&app, "GET", "/waits", 499).await == 2.0).await;
}

#[tokio::test]
async fn the_handler_of_a_reset_stream_is_dropped_and_the_other_streams_go_on() {
    let (router, gate, dropped) = waits_for_ever();
    let app = on_loopback(router, |_| {}).await;
    let client = Http2::connect(app.addr()).await;
    tokio::select! {
        answer = client.get("/waits") => panic!("{answer:?}"),
        () = gate.reached_by(1) => {}
    }
    soon("the end of the handler", dropped).await.unwrap();
    until("it to be counted", async || requests(&app, "GET", "/waits", 499).await == 1.0).await;
    assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
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
