//! Clients in the middle of something: waited for until their own deadline or ours, then cut off by name.

use super::goaway::h2_client;
use super::*;

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
    assert_eq!(two.get("/hello").await.unwrap().status, 200);
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
            assert_eq!(report.requests_finished, 3, "all since the start");
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
