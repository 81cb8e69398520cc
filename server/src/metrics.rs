//! What one server counts. Handles are made when the router is built, so that a request looks nothing up.

use std::fmt::{self, Write};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use mainspring_observe::metrics::{DURATION_BUCKETS, Registry};
use mainspring_observe::trace::TraceContext;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// The metrics of one server, in a registry of its own: two servers in one process do not mix.
pub(crate) struct ServerMetrics {
    pub(crate) registry: Registry,
    pub(crate) active: Gauge<i64, AtomicI64>,
    pub(crate) connections: Gauge<i64, AtomicI64>,
    pub(crate) phase: Gauge,
    /// How late the main runtime polls what is ready.
    pub(crate) loop_lag: Histogram,
    pub(crate) components: Family<ComponentLabels, Gauge>,
    duration: Family<RequestLabels, Durations, fn() -> Durations>,
    rejected: Family<ReasonLabels, Counter>,
}

/// The histograms of one route, by method and status.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    route: Arc<str>,
    cells: Vec<OnceLock<Durations>>,
}

/// The label of a daemon.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ComponentLabels {
    pub(crate) name: String,
}

/// With a trace that was recorded as an example of a bucket.
type Durations = HistogramWithExemplars<[(&'static str, TraceId); 1]>;

/// Written in hexadecimal; kept as it came, so that remembering one allocates nothing.
#[derive(Clone, Debug)]
struct TraceId([u8; 32]);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Upper bounds of the loop's lag, in seconds. A timer of tokio's is late by up to a millisecond when all is well.
const LAG_BUCKETS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// Why a connection is turned away or ended, or, where it is `unread`, a stream of it.
///
/// `cap`: one more than `max_connections`. `timeout`: it sent too little in time. `unread`: it did not take its answer in
/// time. `malformed`, `head_too_large`: not HTTP, or too much of it. `reset_flood`, `continuation_flood`,
/// `control_flood` (SETTINGS and PING) and, for what the library does not name, `flood`: HTTP/2 that only makes work.
const REASONS: [&str; 9] = [
    "cap",
    "timeout",
    "unread",
    "malformed",
    "head_too_large",
    "reset_flood",
    "continuation_flood",
    "control_flood",
    "flood",
];

/// Methods as labels; the last stands for all others.
pub(crate) const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "_OTHER"];

/// Statuses that have a place of their own in [`RouteMetrics`]; others are looked up.
const STATUSES: [u16; 26] = [
    200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499, 500,
    502, 503, 504,
];

impl ServerMetrics {
    pub(crate) fn new() -> Self {
        let this = Self {
            registry: Registry::new(),
            active: Gauge::default(),
            connections: Gauge::default(),
            phase: Gauge::default(),
            loop_lag: Histogram::new(LAG_BUCKETS),
            components: Family::default(),
            duration: Family::new_with_constructor(|| Durations::new(DURATION_BUCKETS.into_iter())),
            rejected: Family::default(),
        };
        let registry = &this.registry;
        registry.register(
            "http_server_request_duration_seconds",
            "Time from a request's head to the end of its response",
            this.duration.clone(),
        );
        registry.register("http_server_active_requests", "Requests in progress", this.active.clone());
        registry.register("http_server_connections", "Open connections", this.connections.clone());
        registry.register(
            "http_server_connections_rejected",
            "Connections that were refused or closed for breaking a limit",
            this.rejected.clone(),
        );
        registry.register(
            "shutdown_phase",
            "0 starting, 1 ready, 2 lame duck, 3 draining, 4 flushing, 5 stopped",
            this.phase.clone(),
        );
        registry.register(
            "runtime_loop_lag_seconds",
            "How much later than due the main runtime ran a timer, looked at twice a second",
            this.loop_lag.clone(),
        );
        registry.register("component_up", "Whether a daemon is running", this.components.clone());
        // There from the start, so that the first one is an increase and not a new series.
        for reason in REASONS {
            drop(this.rejected.get_or_create(&ReasonLabels { reason }));
        }
        this
    }

    /// Counts a connection that was turned away.
    pub(crate) fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a request. Its trace becomes an exemplar if somebody records it.
    pub(crate) fn observe(
        &self,
        route: &RouteMetrics,
        method: usize,
        status: u16,
        seconds: f64,
        trace: Option<&TraceContext>,
    ) {
        let exemplar =
            trace.filter(|trace| trace.is_sampled()).map(|trace| [("trace_id", TraceId(trace.trace_id_hex()))]);
        match STATUSES.iter().position(|known| *known == status) {
            Some(column) => {
                let cell = &route.cells[method * STATUSES.len() + column];
                cell.get_or_init(|| self.histogram(route, method, status)).observe(seconds, exemplar, None);
            }
            None => self.histogram(route, method, status).observe(seconds, exemplar, None),
        }
    }

    fn histogram(&self, route: &RouteMetrics, method: usize, status: u16) -> Durations {
        let labels = RequestLabels {
            http_request_method: METHODS[method],
            http_route: (*route.route).to_owned(),
            http_response_status_code: status,
        };
        self.duration.get_or_create_owned(&labels)
    }
}

impl EncodeLabelValue for TraceId {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl RouteMetrics {
    pub(crate) fn new(route: Arc<str>) -> Self {
        Self { route, cells: (0..METHODS.len() * STATUSES.len()).map(|_| OnceLock::new()).collect() }
    }
}

/// The place of a method in [`METHODS`].
pub(crate) fn method_index(method: &http::Method) -> usize {
    let name = method.as_str();
    METHODS.iter().position(|known| *known == name).unwrap_or(METHODS.len() - 1)
}

impl fmt::Debug for ServerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerMetrics").finish_non_exhaustive()
    }
}
