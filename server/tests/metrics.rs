//! What a scrape shows, and in which format.

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get as on_get;
use common::{get, in_process, ms, until};
use mainspring_observe::metrics;

fn hello() -> Router {
    Router::new().route("/hello", on_get(async || "hello"))
}

fn scrape(accept: &str) -> Request<Body> {
    Request::get("/metrics").header("accept", accept).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_scraper_chooses_the_format() {
    let app = in_process(hello(), |_| {}).await;
    app.request(get("/hello")).await;
    let text = app.admin(scrape("text/plain;version=0.0.4")).await;
    assert_eq!(text.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        text.text().contains("# TYPE http_server_connections_rejected_total counter\n")
            && !text.text().contains("# EOF"),
        "{}",
        text.text()
    );
    let open = app.admin(scrape("application/openmetrics-text")).await;
    assert!(
        open.text().contains("# TYPE http_server_connections_rejected counter\n") && open.text().ends_with("# EOF\n")
    );
    let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let binary = app.admin(scrape(kind)).await;
    assert_eq!(binary.headers["content-type"], kind);
    let name = b"http_server_request_duration_seconds";
    assert!(binary.body.windows(name.len()).any(|window| window == name));
}

#[tokio::test]
async fn a_recorded_trace_is_an_exemplar_of_its_request_and_another_is_not() {
    let app = in_process(hello(), |_| {}).await;
    let ask = |trace: &str| Request::get("/hello").header("traceparent", trace).body(Body::empty()).unwrap();
    app.request(ask("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")).await;
    app.request(ask("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")).await;
    let text = app.admin(get("/metrics")).await.text().to_owned();
    assert!(text.contains(" # {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} "), "{text}");
    assert!(!text.contains("0af7651916cd43dd8448eb211c80319c"));
}

/// One test for the names of own metrics: the prefix is the process'.
#[tokio::test]
async fn the_services_own_metrics_have_its_prefix_and_the_kits_keep_their_names() {
    let early = metrics::counter("registered_before", "The server was made");
    early.inc();
    let app = in_process(hello(), |config| {
        config.metrics.namespace = "shop".to_owned();
        config.metrics.subsystem = "orders".to_owned();
        config.metrics.max_series = 2;
    })
    .await;
    let by_city = metrics::counters("by_city", "Orders, by where they go", ["city"]);
    for city in ["Bern", "Chur", "Genf", "Bern"] {
        by_city.with([city]).inc();
    }
    for accept in ["text/plain", "application/openmetrics-text"] {
        let text = app.admin(scrape(accept)).await.text().to_owned();
        for line in [
            "\nshop_orders_registered_before_total 1\n",
            "\nshop_orders_by_city_total{city=\"Bern\"} 2\n",
            "\nshop_orders_by_city_total{city=\"_overflow\"} 1\n",
            "\nhttp_server_active_requests 0\n",
            "\nmetrics_dropped_series_total{metric=\"by_city\"} 1\n",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}

#[tokio::test]
async fn the_runtime_the_process_and_its_lag_are_shown() {
    let app = in_process(hello(), |_| {}).await;
    let shown = async |name: &str| app.admin(get("/metrics")).await.text().contains(&format!("\n{name}"));
    for name in [
        "tokio_workers 1\n",
        "tokio_alive_tasks ",
        "tokio_worker_busy_seconds_total{worker=\"0\"} ",
        "process_open_fds ",
    ] {
        assert!(shown(name).await, "{name}");
    }
    // A handler that blocks the runtime is seen. The beat comes twice a second.
    until("a beat", async || {
        tokio::time::sleep(ms(100)).await;
        shown("runtime_loop_lag_seconds_count ").await
    })
    .await;
    until("the lag to be seen", async || {
        std::thread::sleep(ms(700));
        tokio::time::sleep(ms(1)).await;
        common::sample(&app, "runtime_loop_lag_seconds_sum").await >= 0.15
    })
    .await;
}
