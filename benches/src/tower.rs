//! The layers that most services put together by hand: what the kit does for a request, less its limits and drain.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    method: String,
    route: String,
    status: u16,
}

type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// `router` under request id, trace, caught panics, timeout and a histogram by route.
pub(crate) fn layered(router: Router) -> Router {
    let _ = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::INFO).try_init();
    let durations: Durations = Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 14)));
    router
        .route_layer(from_fn(move |request, next| measure(durations.clone(), request, next)))
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(15)))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .with_state(())
}

async fn measure(durations: Durations, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().as_str().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let response = next.run(request).await;
    let labels = Labels { method, route, status: response.status().as_u16() };
    durations.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    response
}
