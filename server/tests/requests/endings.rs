//! Requests that do not end as they should: panics, timeouts, clients that leave.

use super::*;

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
pub(super) fn half_a_body(gate: &Gate) -> Body {
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

pub(super) fn waits_for_ever() -> (Router, Gate, tokio::sync::oneshot::Receiver<()>) {
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
