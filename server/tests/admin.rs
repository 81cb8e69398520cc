//! The admin listener: what operators, probes and scrapers ask, also while the main runtime stands still.

mod common;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get as on_get;
use common::{Gate, Http1, config, get, in_process, ms, on_loopback, server, soon};
use mainspring_daemon::{Check, PageRequest, PageResponse};
use mainspring_server::SimpleServer;
use mainspring_server::testing::TestApp;

fn hello() -> Router {
    Router::new().route("/hello", on_get(async || "hello")).route("/cats/{id}", on_get(async || "cat"))
}

fn plain() -> SimpleServer {
    server(config(|_| {}), hello())
}

#[tokio::test]
async fn the_index_lists_pages_and_public_routes() {
    let app = plain();
    app.board().add_page("/debug/cats", "where the <cats> are", async |_| PageResponse::text("asleep"));
    let app = TestApp::in_process(app).await;
    let index = app.admin(get("/")).await;
    assert_eq!(index.status, 200);
    for shown in [
        "<a href=\"/livez\">",
        "<a href=\"/readyz?verbose\">",
        "<a href=\"/metrics\">",
        "<a href=\"/-/log\">",
        "<a href=\"/-/config\">",
        "<a href=\"/debug/cats\">/debug/cats</a> where the &lt;cats&gt; are",
        "<code>/cats/{id}</code>",
        "plain 0.0.0",
    ] {
        assert!(index.text().contains(shown) || index.text().replace("<code>", "").contains(shown), "{}", index.text());
    }
}

#[tokio::test]
async fn the_metrics_page_can_have_no_path_that_the_index_lists() {
    let app = plain();
    app.board().add_page("/debug/cats", "where the cats are", async |_| PageResponse::text("asleep"));
    let app = TestApp::in_process(app).await;
    let index = app.admin(get("/")).await;
    let listed: Vec<_> =
        index.text().split("href=\"").skip(1).filter_map(|rest| rest.split(['"', '?']).next()).collect();
    assert!(listed.len() > 5, "{listed:?}");
    for path in listed {
        let mut config = mainspring_server::Config::default();
        config.metrics.path = path.to_owned();
        let faults = mainspring_config::Report::of(&config);
        assert_eq!(faults.iter().any(|fault| fault.key == "metrics.path"), path != "/metrics", "{path}");
    }
}

#[tokio::test]
async fn the_probes_say_ok() {
    let app = in_process(hello(), |_| {}).await;
    for probe in ["/livez", "/readyz", "/startupz"] {
        let answer = app.admin(get(probe)).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "ok\n"), "{probe}");
    }
    let verbose = app.admin(get("/readyz?verbose")).await;
    assert_eq!(verbose.text(), "[+]phase ready\nreadyz ok\n");
}

#[tokio::test(start_paused = true)]
async fn checks_decide_readiness_within_their_timeouts_and_never_liveness() {
    let app = plain();
    let (broken, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (is_broken, counted) = (Arc::clone(&broken), Arc::clone(&asked));
    app.board().add_check(Check::new("db"), move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let broken = is_broken.load(Ordering::SeqCst);
        async move { if broken { Err("connection refused".into()) } else { Ok(()) } }
    });
    app.board().add_check(Check::new("cache").optional().timeout(ms(300)), std::future::pending);
    let app = TestApp::in_process(app).await;
    assert_eq!(app.admin(get("/readyz")).await.status, 200, "an optional one may fail");
    let said = "[+]phase ready\n[+]db ok\n[-]cache (optional) no answer within 300ms\nreadyz ok\n";
    assert_eq!(app.admin(get("/readyz?verbose")).await.text(), said);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "many probes are not many checks");

    broken.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(2)).await;
    let answer = app.admin(get("/readyz")).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("[-]db connection refused\n"), "{}", answer.text());
    assert_eq!(app.admin(get("/livez")).await.status, 200);
    assert_eq!(app.request(get("/healthz")).await.status, 200);

    broken.store(false, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(app.admin(get("/readyz")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_required_check_that_hangs_or_panics_makes_the_process_unready() {
    for (hangs, said) in [(true, "[-]db no answer within 1s"), (false, "[-]db the check panicked")] {
        let app = plain();
        app.board().add_check(Check::new("db"), move || async move {
            assert!(hangs, "the check fell over");
            std::future::pending().await
        });
        let app = TestApp::in_process(app).await;
        let answer = app.admin(get("/readyz")).await;
        assert!(answer.status == 503 && answer.text().contains(said), "{}", answer.text());
    }
}

#[tokio::test]
async fn metrics_are_open_metrics_with_one_end() {
    let config = config(|config| config.metrics.path = "/stats".to_owned());
    let app = server(config, hello()).daemon("ship", async |_| Ok::<_, mainspring_daemon::BoxError>(()));
    let app = TestApp::in_process(app).await;
    app.request(get("/cats/7")).await;
    assert_eq!(app.admin(get("/metrics")).await.status, 404);
    let answer = app.admin(get("/stats")).await;
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.text();
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    let (mut families, mut samples) = (HashSet::new(), HashSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(rest.split(' ').next().unwrap()), "two families in one name: {line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(name), "one sample twice: {line}");
            let family = families.iter().any(|family| name.starts_with(family));
            assert!(family, "a sample of no family: {line}");
        }
    }
    for name in ["http_server_request_duration_seconds", "http_server_active_requests", "http_server_connections"] {
        assert!(families.contains(name), "{name} in {text}");
    }
    assert!(families.contains("http_server_connections_rejected") && families.contains("component_up"), "{text}");
    assert!(samples.iter().any(|name| name.contains("http_route=\"/cats/{id}\"")), "{text}");
    assert!(!text.contains("/cats/7"), "ids are never labels");
}

#[tokio::test]
async fn the_configuration_is_shown() {
    let app = in_process(hello(), |config| config.http.max_in_flight = 77).await;
    let shown: serde_json::Value = app.admin(get("/-/config")).await.json();
    assert_eq!(shown["http"]["max_in_flight"], 77);
    assert!(!shown.to_string().contains(&std::env::var("PATH").unwrap()), "the environment is never shown");
}

// Pages.

#[tokio::test]
async fn daemons_put_up_pages() {
    let page = async |request: PageRequest| {
        let body = String::from_utf8_lossy(&request.body);
        let said = format!("{} {} {:?} {body}", request.method, request.query, request.accept);
        PageResponse::json(said).with_status(202)
    };
    let app = plain().daemon("ship", async move |cx: mainspring_daemon::Context| {
        cx.page("/debug/ship", "what is being shipped", page);
        cx.page("/debug/picky", "a page that says no", async |_| PageResponse::text("say please\n").with_status(405));
        cx.page("/debug/broken", "a page that panics", async |_| panic!("the page fell over"));
        cx.shutdown().requested().await;
        Ok::<_, mainspring_daemon::BoxError>(())
    });
    let app = TestApp::on_loopback(app).await;
    let request = Request::post("/debug/ship?n=1").header("accept", "text/plain").body(Body::from("now")).unwrap();
    let answer = app.admin(request).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (202, "POST n=1 \"text/plain\" now"));
    assert_eq!(answer.headers["content-type"], "application/json");
    let mut client = Http1::connect(app.admin_addr()).await;
    assert_eq!(client.get("/debug/ship").await.unwrap().text(), "GET  \"\" ");
    let missing = client.get("/debug/nothing").await.unwrap();
    assert!(missing.problem(404)["detail"].as_str().unwrap().contains("index"));
    client.get("/debug/broken").await.unwrap().problem(500);
    assert_eq!(client.get("/livez").await.unwrap().status, 200, "the listener goes on");
    let refused = client.get("/debug/picky").await.unwrap();
    assert_eq!(refused.problem(405)["detail"], "say please");
    assert_eq!(refused.header("allow"), Some("GET, HEAD, POST"));
    let mut client = common::Raw::connect(app.admin_addr()).await;
    client.send("POST /debug/ship HTTP/1.1\r\nhost: a\r\ncontent-length: 65537\r\n\r\n").await;
    client.reply().await.problem(413);
}

#[tokio::test]
async fn web_pages_may_read_and_change_nothing() {
    let app = plain().daemon("ship", async move |cx: mainspring_daemon::Context| {
        cx.page("/debug/ship", "what is being shipped", async |_| PageResponse::text("shipped"));
        cx.shutdown().requested().await;
        Ok::<_, mainspring_daemon::BoxError>(())
    });
    let app = TestApp::in_process(app).await;
    common::until("the page", async || app.admin(get("/debug/ship")).await.status == 200).await;
    let post = |name: &str, value: &str| Request::post("/debug/ship").header(name, value).body(Body::empty()).unwrap();
    for (name, value) in [("origin", "http://evil.test"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        let status = app.admin(post(name, value)).await.status;
        assert_eq!(status, 403, "{name}: {value}");
    }
    assert_eq!(app.admin(post("user-agent", "curl")).await.status, 200);
    assert_eq!(app.admin(post("sec-fetch-site", "none")).await.status, 200);
}

// The log.

fn put(uri: &str, filter: &str) -> Request<Body> {
    Request::put(uri).body(Body::from(filter.to_owned())).unwrap()
}

/// One test, because a process has one log.
#[tokio::test(start_paused = true)]
async fn the_log_filter_is_shown_changed_and_comes_back_by_itself() {
    let identity = mainspring_observe::Identity::new("plain", "0.0.0");
    let log = mainspring_observe::log::Config { filter: "warn".to_owned(), ..Default::default() };
    let _guard = mainspring_server::init(&log, &identity).unwrap();
    let app = in_process(hello(), |_| {}).await;
    let filter = async || app.admin(get("/-/log")).await.text().trim().to_owned();
    assert_eq!(filter().await, "warn");

    assert_eq!(app.admin(put("/-/log", "info,orders=debug\n")).await.text(), "info,orders=debug\n");
    assert_eq!(filter().await, "info,orders=debug");
    let bad = app.admin(put("/-/log", "orders=loud")).await;
    assert_eq!(bad.status, 400);
    assert!(bad.text().contains("loud"), "{}", bad.text());
    assert_eq!(filter().await, "info,orders=debug", "a bad one changes nothing");

    let from_a_page = Request::put("/-/log").header("origin", "http://evil.example").body(Body::from("trace")).unwrap();
    assert_eq!(app.admin(from_a_page).await.status, 403);
    for query in ["?for=", "?for=5", "?for=0s", "?four=5m", "?for=5m&x=1"] {
        assert_eq!(app.admin(put(&format!("/-/log{query}"), "trace")).await.status, 400, "{query}");
    }
    assert_eq!(filter().await, "info,orders=debug");

    assert_eq!(app.admin(put("/-/log?for=5m", "debug")).await.status, 200);
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(filter().await, "debug");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(filter().await, "info,orders=debug");

    // Changed again before it came back: the later change stands.
    assert_eq!(app.admin(put("/-/log?for=5m", "debug")).await.status, 200);
    assert_eq!(app.admin(put("/-/log", "error")).await.status, 200);
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(filter().await, "error");

    // Two for a time: what was there before both comes back.
    assert_eq!(app.admin(put("/-/log?for=5m", "debug")).await.status, 200);
    assert_eq!(app.admin(put("/-/log?for=5m", "trace")).await.status, 200);
    assert_eq!(filter().await, "trace");
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(filter().await, "error");
    app.admin(put("/-/log", "warn")).await;
}

// While the main runtime does other things.

#[tokio::test]
async fn the_admin_listener_answers_to_the_end_of_a_drain() {
    let gate = Gate::new();
    let at_gate = gate.clone();
    let app = on_loopback(hello().route("/waits", on_get(async move || at_gate.pass().await)), |_| {}).await;
    let (mut admin, mut client) = (Http1::connect(app.admin_addr()).await, Http1::connect(app.addr()).await);
    let (answer, ()) = tokio::join!(client.get("/waits"), async {
        gate.reached_by(1).await;
        let stopping = app.begin_sigterm();
        common::until("draining", async || stopping.phase() == mainspring_server::Phase::Draining).await;
        let readyz = admin.get("/readyz").await.unwrap();
        assert!(readyz.status == 503 && readyz.text().contains("draining"), "{}", readyz.text());
        assert_eq!(admin.get("/livez").await.unwrap().status, 200);
        assert!(admin.get("/metrics").await.unwrap().text().contains("\nshutdown_phase 3\n"));
        gate.open();
        assert!(!soon("the end", stopping.ended()).await.forced);
    });
    answer.unwrap();
}

/// A request by a client that needs no runtime.
fn blocking_get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (common::Reply::parse(head).status, body.to_owned())
}

#[test]
fn while_a_handler_blocks_the_main_runtime_admin_answers_and_livez_turns_503_after_ten_seconds() {
    let release = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&release);
    let spin = async move || {
        while !released.load(Ordering::SeqCst) {
            // Blocks as a busy loop does, without taking a core from the other tests.
            std::thread::sleep(ms(10));
        }
    };
    let (started, addrs) = std::sync::mpsc::channel();
    let main = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let app = on_loopback(hello().route("/spin", on_get(spin)), |_| {}).await;
            started.send((app.addr(), app.admin_addr())).unwrap();
            // The request's client lives on this runtime too, and stands still with it.
            assert_eq!(
                Http1::connect(app.addr()).await.sender.send_request(common::request("/spin")).await.unwrap().status(),
                200
            );
            assert!(!app.sigterm().await.forced);
        });
    });
    let (_, admin) = addrs.recv().unwrap();
    let began = Instant::now();
    let stalled_after = loop {
        let asked = Instant::now();
        let (status, answer) = blocking_get(admin, "/livez");
        assert!(asked.elapsed() < ms(1000), "the admin listener took {:?}", asked.elapsed());
        if status == 503 {
            assert!(answer.contains("the main runtime has not moved"), "{answer}");
            break began.elapsed();
        }
        assert_eq!(status, 200);
        assert!(began.elapsed() < Duration::from_secs(14), "never noticed");
        std::thread::sleep(ms(50));
    };
    assert!(stalled_after > Duration::from_secs(9), "{stalled_after:?}");
    for page in ["/", "/metrics", "/readyz", "/-/config"] {
        assert_eq!(blocking_get(admin, page).0, 200, "{page}");
    }
    release.store(true, Ordering::SeqCst);
    main.join().unwrap();
}
