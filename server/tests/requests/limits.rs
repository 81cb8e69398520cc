//! Limits of requests and of their bodies.

use super::*;

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
pub(super) fn readers() -> Router {
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
