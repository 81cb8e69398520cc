//! From ready to the exit code.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::Daemon;
use crate::http::{self, Connection};

#[test]
fn an_order_is_accepted_shipped_and_shown() {
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(daemon.http).unwrap();
    let accepted = connection.order("A1", 2).unwrap();
    assert_eq!(accepted.status, 202);
    assert_eq!(accepted.json()["id"], "A1");
    daemon.event(|event| event["msg"] == "shipped" && event["fields"]["order"] == "A1");
    let shown = connection.get("/orders/A1").unwrap();
    assert_eq!(shown.json(), json!({"id": "A1", "item": "tea", "quantity": 2, "status": "shipped"}));
    assert_eq!(connection.get("/orders/B2").unwrap().status, 404);

    assert_eq!(connection.order("A2", 1001).unwrap().status, 202);
    daemon.event(|event| event["level"] == "ERROR");
    assert_eq!(connection.get("/orders/A2").unwrap().json()["status"], "rejected");
    let newest = connection.get("/orders").unwrap().json();
    assert_eq!((newest[0]["id"].as_str(), newest[1]["id"].as_str()), (Some("A2"), Some("A1")));
    daemon.signal("TERM");
    let end = daemon.end();
    assert_eq!((end.code, end.shipped()), (Some(0), vec!["A1"]));
}

#[test]
fn no_order_is_acked_before_its_line_is_written() {
    const ORDERS: usize = 3000;
    let daemon = Daemon::start(&[]);
    let held = daemon.hold_log();
    let mut connection = Connection::open(daemon.http).unwrap();
    for n in 0..ORDERS {
        assert_eq!(connection.order(&format!("A{n}"), 1).unwrap().status, 202);
    }
    let metric = |name: &str| -> usize {
        let page = http::get(daemon.admin, "/metrics").body;
        let line = page.lines().find(|line| line.starts_with(name));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    let acked = || metric("pubsub_outcome_total{route=\"ship\",outcome=\"acked\"}");
    // The pipe is full: every handler has an order in hand, and waits.
    let until = Instant::now() + Duration::from_secs(20);
    while metric("pubsub_inflight") < 64 && acked() < ORDERS {
        assert!(Instant::now() < until, "{} are acked", acked());
        std::thread::yield_now();
    }
    let acked = acked();
    daemon.signal("KILL");
    drop(held);
    let written = daemon.end().shipped().len();
    assert!(0 < acked && acked <= written && written < ORDERS, "{acked} are acked, {written} are written");
}

#[test]
fn a_bad_order_is_refused_with_a_reason_and_nothing_is_published() {
    let daemon = Daemon::start(&[]);
    let large = format!(r#"{{"id":"A1","item":"{}","quantity":1}}"#, "x".repeat(3 << 20));
    for (kind, body, status, says) in [
        ("application/json", "{\"id\":", 400, "line"),
        ("text/plain", "A1", 415, "application/json"),
        ("application/json", r#"{"id":"A1","quantity":1}"#, 422, "item"),
        ("application/json", r#"{"id":"A1","item":"tea","quantity":"two"}"#, 422, "quantity"),
        ("application/json", r#"{"id":"A1","item":"tea","quantity":0}"#, 422, "quantity"),
        ("application/json", r#"{"id":"","item":"tea","quantity":1}"#, 422, "id"),
        ("application/json", &large, 413, "2097152"),
    ] {
        // A connection each: one whose body was refused is closed.
        let answer = Connection::open(daemon.http).unwrap().post("/orders", kind, body).unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.body.contains(says), "{answer:?}");
    }
    assert_eq!(http::get(daemon.http, "/orders").json(), json!([]));
    let metrics = http::get(daemon.admin, "/metrics").body;
    let sent = metrics.lines().filter(|line| line.starts_with("messaging_client_sent_messages_total"));
    assert!(sent.clone().all(|line| line.ends_with(" 0")), "{:?}", sent.collect::<Vec<_>>());
    daemon.signal("TERM");
    assert_eq!(daemon.end().code, Some(0));
}

#[test]
fn what_was_begun_is_finished_before_the_end() {
    let daemon = Daemon::start(&[("ORDERS_WORK", "700ms")]);
    let mut connection = Connection::open(daemon.http).unwrap();
    for n in 0..100 {
        assert_eq!(connection.order(&format!("A{n}"), 1).unwrap().status, 202);
    }
    daemon.signal("TERM");
    let end = daemon.end();
    assert_eq!(end.code, Some(0), "{:#?}", end.report());
    assert_eq!(end.shipped().len(), 100);
    assert_eq!(end.report()["deliveries_settled"], 100);
    assert_eq!(end.report()["forced"], false);
}

#[test]
fn what_cannot_be_finished_is_given_up_in_time_and_said() {
    let env = [
        ("ORDERS_WORK", "60s"),
        ("ORDERS_SERVER__SHUTDOWN__BUDGET", "1s"),
        ("ORDERS_SERVER__HTTP__REQUEST_TIMEOUT", "500ms"),
    ];
    let daemon = Daemon::start(&env);
    assert_eq!(Connection::open(daemon.http).unwrap().order("A1", 1).unwrap().status, 202);
    until_in_flight(&daemon);
    daemon.signal("TERM");
    let end = daemon.end();
    assert_eq!(end.code, Some(75), "{:#?}", end.report());
    assert!(end.took <= Duration::from_millis(1250), "{:?}", end.took);
    assert_eq!(end.report()["forced"], true);
    assert_eq!(end.report()["deliveries_returned"], 1, "{:#?}", end.report());
    assert!(end.shipped().is_empty());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let daemon = Daemon::start(&[("ORDERS_WORK", "10s")]);
        assert_eq!(Connection::open(daemon.http).unwrap().order("A1", 1).unwrap().status, 202);
        until_in_flight(&daemon);
        daemon.signal(name);
        daemon.event(|event| event["fields"]["phase"] == "draining");
        daemon.signal(name);
        let end = daemon.end();
        assert_eq!(end.code, Some(code));
        assert!(end.took <= Duration::from_millis(100), "{:?}", end.took);
        assert_eq!(end.report()["deliveries_returned"], 1, "{:#?}", end.report());
        assert!(end.report()["draining_ms"].as_f64().unwrap() > 0.0, "{:#?}", end.report());
    }
}

/// Waits until a handler has one message.
fn until_in_flight(daemon: &Daemon) {
    let inflight = || {
        http::get(daemon.admin, "/metrics")
            .body
            .lines()
            .any(|line| line.starts_with("pubsub_inflight{") && line.ends_with(" 1"))
    };
    let until = Instant::now() + Duration::from_secs(10);
    while !inflight() {
        assert!(Instant::now() < until, "the handler does not start");
    }
}

#[test]
fn health_says_no_during_the_lame_duck_while_requests_are_served() {
    let daemon = Daemon::start(&[("ORDERS_SERVER__SHUTDOWN__LAME_DUCK", "1s")]);
    let mut connection = Connection::open(daemon.http).unwrap();
    assert_eq!(connection.get("/healthz").unwrap().body, "\"OK\"");
    assert!(connection.get("/status.txt").unwrap().body.starts_with("ok-orders-0.1.0-"));
    assert_eq!(http::get(daemon.admin, "/readyz").status, 200);
    daemon.signal("TERM");
    daemon.event(|event| event["fields"]["phase"] == "lame_duck");
    let answer = connection.order("A1", 1).unwrap();
    assert_eq!((answer.status, answer.closes()), (202, true));
    for path in ["/healthz", "/status.txt"] {
        assert_eq!(http::get(daemon.http, path).status, 503);
    }
    assert_eq!(http::get(daemon.admin, "/readyz").status, 503);
    assert_eq!(http::get(daemon.admin, "/livez").status, 200);
    let end = daemon.end();
    assert_eq!((end.code, end.shipped()), (Some(0), vec!["A1"]));
}

#[test]
fn hangup_reopens_the_access_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let daemon = Daemon::start(&[("HTTP_ACCESS_LOG", path.to_str().unwrap())]);
    http::get(daemon.http, "/orders/A1");
    let line = |path: &std::path::Path| {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(file) = std::fs::File::open(path)
                && let Some(Ok(line)) = BufReader::new(file).lines().next()
            {
                return serde_json::from_str::<serde_json::Value>(&line).unwrap();
            }
            assert!(Instant::now() < until, "no line in {path:?}");
        }
    };
    let first = line(&path);
    assert_eq!(first["target"], "access");
    assert_eq!(first["fields"]["route"], "/orders/{id}");
    assert_eq!(first["fields"]["status"], 404);
    assert_eq!(first["fields"]["outcome"], "ok");
    let rotated = dir.path().join("access.log.1");
    std::fs::rename(&path, &rotated).unwrap();
    daemon.signal("HUP");
    daemon.event(|event| event["msg"].as_str().is_some_and(|msg| msg.starts_with("SIGHUP")));
    http::get(daemon.http, "/orders");
    assert_eq!(line(&path)["fields"]["route"], "/orders");
    // Where there is no place for the file any more, one error says so.
    dir.close().unwrap();
    daemon.signal("HUP");
    daemon.event(|event| event["level"] == "ERROR");
    daemon.signal("TERM");
    let end = daemon.end();
    assert_eq!((end.code, end.errors().len()), (Some(0), 1), "{:#?}", end.errors());
}

#[test]
fn hangup_reloads_the_log_filter_and_names_what_waits_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("[server.log]\nfilter = \"info\"");
    let daemon = Daemon::start_with(&[], &["--config", path.to_str().unwrap()]);
    let filter = || http::get(daemon.admin, "/-/log").body;

    write("work = \"1s\"\n[server]\nlog.filter = \"info,orders=debug\"\nhttp.max_in_flight = 7");
    daemon.signal("HUP");
    let waiting = daemon.event(|event| event["fields"]["keys"].is_string());
    assert_eq!(waiting["fields"]["keys"], "server.http.max_in_flight, work");
    assert!(filter().contains("info,orders=debug"), "{}", filter());

    write("[server.log]\nfilter = \"warn\"\nfromat = \"json\"");
    daemon.signal("HUP");
    let problem = daemon.event(|event| event["fields"]["problem"].is_string());
    let problem = problem["fields"]["problem"].as_str().unwrap();
    assert!(problem.contains("orders.toml:3") && problem.contains("did you mean"), "{problem}");
    assert!(filter().contains("info,orders=debug"), "{}", filter());

    daemon.signal("TERM");
    assert_eq!(daemon.end().code, Some(0));
}

#[test]
fn an_order_that_no_broker_has_is_not_shown() {
    let daemon = Daemon::start(&[
        ("ORDERS_WORK", "60s"),
        ("ORDERS_BROKERS__MEMORY__CAPACITY", "2"),
        ("ORDERS_SERVER__HTTP__REQUEST_TIMEOUT", "300ms"),
        ("ORDERS_SERVER__SHUTDOWN__BUDGET", "1s"),
    ]);
    let refused = (0..200).map(|n| format!("A{n}")).find(|id| {
        let answer = Connection::open(daemon.http).unwrap().order(id, 1).unwrap();
        assert!(matches!(answer.status, 202 | 504), "{}", answer.status);
        answer.status == 504
    });
    let refused = refused.expect("the broker is full some time");
    assert_eq!(http::get(daemon.http, &format!("/orders/{refused}")).status, 404);
    assert_eq!(http::get(daemon.http, "/orders/A0").json()["status"], "accepted");
    daemon.signal("TERM");
    assert_eq!(daemon.end().code, Some(75), "what is in memory cannot all be shipped");
}

#[test]
fn an_order_too_large_for_the_broker_is_a_413_and_leaves_the_one_before_as_it_was() {
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(daemon.http).unwrap();
    assert_eq!(connection.order("A1", 1).unwrap().status, 202);
    daemon.event(|event| event["msg"] == "shipped");
    let item = "x".repeat(1_100_000);
    let large = json!({"id": "A1", "item": item, "quantity": 2}).to_string();
    let answer = connection.post("/orders", "application/json", &large).unwrap();
    assert_eq!(answer.status, 413);
    assert!(answer.json()["detail"].as_str().unwrap().contains("1048576"), "{}", answer.body);
    let shown = http::get(daemon.http, "/orders/A1").json();
    assert_eq!((&shown["quantity"], &shown["status"]), (&json!(1), &json!("shipped")));
    daemon.signal("TERM");
    assert_eq!(daemon.end().code, Some(0));
}

#[test]
fn what_comes_after_a_drain_is_not_lost_in_silence() {
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(daemon.http).unwrap();
    assert_eq!(connection.order("A1", 1).unwrap().status, 202);
    daemon.event(|event| event["msg"] == "shipped");
    let mut admin = Connection::open(daemon.admin).unwrap();
    let drained = admin.post("/debug/pubsub?route=ship&do=drain", "text/plain", "").unwrap();
    assert_eq!(drained.status, 200, "{}", drained.body);
    daemon.event(|event| event["msg"] == "daemon finished");
    for id in ["A2", "A3"] {
        assert_eq!(connection.order(id, 1).unwrap().status, 202);
    }
    daemon.signal("TERM");
    let end = daemon.end();
    assert_eq!((end.code, end.shipped()), (Some(75), vec!["A1"]));
    let unflushed = end.report()["unflushed"].as_str().unwrap();
    assert!(unflushed.contains("2 messages of memory://orders"), "{unflushed}");
}
