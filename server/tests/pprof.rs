//! `/debug/pprof/` of the admin listener.

mod common;

use std::process::Command;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get as on_get;
use common::{Http1, Raw, config, get, in_process, ms, server, until};
use mainspring_server::testing::TestApp;

fn hello() -> Router {
    Router::new().route("/hello", on_get(async || "hello"))
}

async fn profiled() -> TestApp {
    in_process(hello(), |config| config.pprof.enabled = true).await
}

#[tokio::test]
async fn off_unless_enabled_and_then_the_answer_says_how() {
    let app = in_process(hello(), |_| {}).await;
    for path in ["", "/", "/profile", "/heap", "/cmdline", "/symbol", "/threads", "/tasks", "/goroutine", "/block"] {
        let answer = app.admin(get(&format!("/debug/pprof{path}"))).await;
        assert_eq!(answer.status, 404, "{path}");
        let said = answer.json::<serde_json::Value>()["detail"].as_str().unwrap().to_owned();
        assert!(said.contains("pprof.enabled = true") && said.contains("ENABLE_PPROF=true"), "{said}");
    }
    assert!(app.admin(get("/")).await.text().contains("profiles; off, see pprof.enabled"));
    assert_eq!(app.request(get("/debug/pprof/")).await.status, 404, "never on the public port");
}

#[tokio::test]
async fn the_index_names_every_page_and_each_answers() {
    let app = profiled().await;
    let index = app.admin(get("/debug/pprof/")).await;
    for page in ["profile", "heap", "threads", "tasks", "cmdline", "symbol", "goroutine"] {
        assert!(index.text().contains(&format!("<a href=\"/debug/pprof/{page}\">")), "{}", index.text());
    }
    assert!(index.text().contains("Heap profiles are not available"), "{}", index.text());
    let threads = app.admin(get("/debug/pprof/threads")).await;
    assert!(threads.text().lines().count() > 1, "{}", threads.text());
    for page in ["tasks", "goroutine"] {
        let tasks = app.admin(get(&format!("/debug/pprof/{page}"))).await;
        assert!(tasks.text().contains("heartbeat (server/src/bound.rs:"), "{}", tasks.text());
    }
    let command_line = app.admin(get("/debug/pprof/cmdline")).await;
    let own: Vec<String> = std::env::args().collect();
    assert_eq!(command_line.text().split('\0').next(), Some(&*own[0]));
    for page in ["allocs", "block", "mutex", "trace"] {
        assert_eq!(app.admin(get(&format!("/debug/pprof/{page}"))).await.status, 501, "{page}");
    }
}

#[tokio::test]
async fn addresses_are_named() {
    let app = profiled().await;
    assert_eq!(app.admin(get("/debug/pprof/symbol")).await.text(), "num_symbols: 1\n");
    let here = addresses_are_named as *const () as usize + 1;
    let post = |body: String| Request::post("/debug/pprof/symbol").body(Body::from(body)).unwrap();
    let answer = app.admin(post(format!("{here:#x}+0x10"))).await;
    assert!(answer.text().contains(&format!("{here:#x} pprof::addresses_are_named")), "{}", answer.text());
    assert_eq!(app.admin(get(&format!("/debug/pprof/symbol?{here:#x}"))).await.text(), answer.text());
    assert_eq!(app.admin(post("main".to_owned())).await.status, 400);
    assert_eq!(app.admin(post(["0x1"; 4097].join("+"))).await.status, 400);
}

#[tokio::test]
async fn a_parameter_out_of_bounds_is_refused_with_the_bound() {
    let app = profiled().await;
    for (query, said) in [
        ("profile?seconds=0", "from 1 to 300"),
        ("profile?seconds=-1", "from 1 to 300"),
        ("profile?seconds=1e9", "from 1 to 300"),
        ("profile?seconds=301", "from 1 to 300"),
        ("profile?seconds", "from 1 to 300"),
        ("profile?hz=100000", "from 1 to 250"),
        ("profile?hz=0", "from 1 to 250"),
        ("profile?format=pdf", "pprof, folded or svg"),
        ("profile?second=5", "seconds, hz and format"),
        ("profile?seconds=1&seconds=2", "seconds is there twice"),
        ("profile?hz=50&seconds=1&hz=50", "hz is there twice"),
        ("heap?seconds=0", "from 1 to 300"),
        ("heap?hz=99", "seconds and format"),
    ] {
        let answer = app.admin(get(&format!("/debug/pprof/{query}"))).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(said), "{query}: {}", answer.text());
    }
    let post = Request::post("/debug/pprof/profile?seconds=1").body(Body::empty()).unwrap();
    let answer = app.admin(post).await;
    assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, "GET,HEAD"));
}

#[tokio::test]
async fn a_heap_profile_without_jemalloc_names_the_feature() {
    let app = profiled().await;
    let answer = app.admin(get("/debug/pprof/heap")).await;
    assert_eq!(answer.status, 501);
    assert!(answer.text().contains("--features jemalloc"), "{}", answer.text());
}

/// One test for all that records: there is one profiler in a process.
#[tokio::test]
async fn profiles_are_taken_one_at_a_time_and_end_with_their_client() {
    if let Err(refusal) = mainspring_observe::profile::cpu::possible() {
        let answer = profiled().await.admin(get("/debug/pprof/profile?seconds=1")).await;
        assert_eq!(answer.status, 501);
        assert!(answer.text().contains("frame pointers") || answer.text().contains("Linux"), "{refusal}");
        return;
    }
    let app = TestApp::on_loopback(server(config(|config| config.pprof.enabled = true), hello())).await;
    let mut client = Http1::connect(app.admin_addr()).await;

    // HEAD answers at once, whatever is asked for.
    let mut raw = Raw::connect(app.admin_addr()).await;
    raw.send("HEAD /debug/pprof/profile?seconds=300 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = raw.through("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/octet-stream"), "{head}");
    assert!(!head.contains("content-length"), "nobody knows yet how long it will be: {head}");
    raw.send("POST /debug/pprof/profile HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    assert!(raw.reply().await.problem(405)["detail"].as_str().unwrap().contains("GET"));

    // While one runs, another is refused; when its client leaves, the profiler is free again.
    let (mut leaving, mut refused) = (None, None);
    until("the second to be refused", async || {
        // Anew each time, as it may have been the one that was refused.
        let mut first = Raw::connect(app.admin_addr()).await;
        first.send("GET /debug/pprof/profile?seconds=300 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        tokio::time::sleep(ms(20)).await;
        let answer = client.get("/debug/pprof/profile?seconds=1").await.unwrap();
        refused = (answer.status == 409).then_some(answer);
        leaving = Some(first);
        refused.is_some()
    })
    .await;
    let refused = refused.unwrap();
    assert!(refused.problem(409)["detail"].as_str().unwrap().contains("another profile"));
    assert!(refused.header("retry-after").is_some());
    // HEAD asks for no profile.
    let mut raw = Raw::connect(app.admin_addr()).await;
    raw.send("HEAD /debug/pprof/profile HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(raw.through("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    drop(leaving);
    until("the profiler to be free", async || {
        tokio::time::sleep(ms(10)).await;
        client.get("/debug/pprof/profile?seconds=1&hz=50&format=folded").await.unwrap().status == 200
    })
    .await;

    // The pictures are there, and what Go's tool is for, it can read.
    let svg = client.get("/debug/pprof/profile?seconds=1&format=svg").await.unwrap();
    assert_eq!(svg.header("content-type"), Some("image/svg+xml"));
    assert!(svg.text().starts_with("<svg ") && svg.text().ends_with("</svg>\n"));
    let profile = client.get("/debug/pprof/profile?seconds=1").await.unwrap();
    assert_eq!(profile.header("content-disposition"), Some("attachment; filename=\"profile\""));
    assert_eq!(profile.body[..2], [0x1f, 0x8b], "gzip");
    if Command::new("go").arg("version").output().is_ok() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &profile.body).unwrap();
        let read = Command::new("go").args(["tool", "pprof", "-raw"]).arg(file.path()).output().unwrap();
        let text = String::from_utf8_lossy(&read.stdout);
        assert!(read.status.success() && text.contains("PeriodType: cpu nanoseconds"), "{read:?}");
    } else {
        eprintln!("SKIPPED: go tool pprof is not here to read the profile");
    }
}
