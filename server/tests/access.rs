//! What the access log leaves out, and Apache's format.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get as on_get;
use common::{Http1, Raw, get, in_process, ms, on_loopback, request, soon};
use mainspring_observe::log::{self, AccessFormat};

fn routes(prefix: &str) -> Router {
    let fails = async || StatusCode::BAD_GATEWAY;
    let slow = async || tokio::time::sleep(ms(60)).await;
    let routes = Router::new().route("/ok", on_get(async || "hello")).route("/fails", on_get(fails));
    Router::new().nest(prefix, routes.route("/slow", on_get(slow)))
}

/// All tests of this process share its log, and write under routes of their own.
fn lines() -> Vec<String> {
    let guard = open_log();
    assert!(guard.0.flush(Duration::from_secs(20)));
    std::fs::read_to_string(guard.1).unwrap().lines().map(str::to_owned).collect()
}

fn open_log() -> (log::Guard, PathBuf) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("access-{}.log", std::process::id()));
    let access = serde_json::from_value(path.to_str().unwrap().into()).unwrap();
    let config = log::Config { access, ..Default::default() };
    let identity = mainspring_observe::Identity::new("plain", "1.2.3");
    (mainspring_server::init(&config, &identity).unwrap(), path)
}

#[tokio::test]
async fn ordinary_requests_are_sampled_and_errors_and_slow_ones_never() {
    let _log = open_log();
    let app = in_process(routes("/sampled"), |config| {
        config.log.access_sample = 4;
        config.log.access_slow = ms(50).into();
    })
    .await;
    for _ in 0..400 {
        app.request(get("/sampled/ok")).await;
    }
    for _ in 0..5 {
        for path in ["/sampled/fails", "/sampled/nothing", "/sampled/slow"] {
            app.request(get(path)).await;
        }
    }
    let lines: Vec<serde_json::Value> = lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |path: &str| lines.iter().filter(|line| line["fields"]["path"] == path).collect::<Vec<_>>();
    for path in ["/sampled/fails", "/sampled/nothing", "/sampled/slow"] {
        assert_eq!(of(path).len(), 5, "{path}");
        assert!(of(path).iter().all(|line| line["fields"]["sampled"].is_null()));
    }
    let ok = of("/sampled/ok");
    // A hundred on average; fewer than forty or more than two hundred do not happen by chance.
    assert!((40..200).contains(&ok.len()), "{}", ok.len());
    assert!(
        ok.iter().all(|line| line["fields"]["sampled"] == 4 || line["fields"]["duration_ms"].as_f64() >= Some(50.0))
    );
}

#[tokio::test]
async fn headers_that_identify_a_client_are_not_printed() {
    let print = async |headers: HeaderMap| format!("{headers:?} {:?}", headers["cookie"].to_str());
    let app = in_process(Router::new().route("/printed", on_get(print)), |_| {}).await;
    let mut request = get("/printed");
    for name in ["authorization", "cookie", "proxy-authorization", "x-api-key", "x-other"] {
        request.headers_mut().append(name, format!("{name} hunter2").parse().unwrap());
        request.headers_mut().append(name, format!("{name} hunter2, too").parse().unwrap());
    }
    let printed = app.request(request).await.text().replace("Ok(\"cookie hunter2\")", "readable");
    assert!(printed.contains("x-other hunter2, too") && printed.ends_with("readable"), "{printed}");
    assert_eq!(printed.matches("hunter2").count(), 2, "{printed}");
}

#[tokio::test]
async fn apaches_format_is_what_apache_writes() {
    let _log = open_log();
    let app = on_loopback(routes("/combined"), |config| config.log.access_format = AccessFormat::Combined).await;
    let mut raw = Raw::connect(app.addr()).await;
    raw.send(
        "GET /combined/ok?secret=1 HTTP/1.1\r\nhost: a\r\nreferer: http://a/\"b\"\r\nuser-agent: odd \\ one\r\n\r\n",
    )
    .await;
    assert_eq!(raw.reply().await.text(), "hello");
    raw.send("HEAD /combined/ok HTTP/1.1\r\nhost: a\r\n\r\n").await;
    raw.through("\r\n\r\n").await;
    let mut client = Http1::connect(app.addr()).await;
    let _ = soon("an answer", client.sender.send_request(request("/combined/fails"))).await.unwrap();
    let lines: Vec<_> = lines().into_iter().filter(|line| line.contains(" /combined/")).collect();
    let rest = |line: &str| {
        let (before, rest) = line.split_once(" - - [").unwrap();
        let (time, rest) = rest.split_once(']').unwrap();
        assert_eq!((before, time.len(), &time[20..]), ("127.0.0.1", 26, " +0000"), "{line}");
        rest.to_owned()
    };
    let shown: Vec<_> = lines.iter().map(|line| rest(line)).collect();
    assert_eq!(shown[0], r#" "GET /combined/ok HTTP/1.1" 200 5 "http://a/\"b\"" "odd \\ one""#);
    assert_eq!(shown[1], r#" "HEAD /combined/ok HTTP/1.1" 200 - "-" "-""#);
    assert_eq!(shown[2], r#" "GET /combined/fails HTTP/1.1" 502 - "-" "-""#);
}
