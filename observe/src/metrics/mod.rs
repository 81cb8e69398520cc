//! Metrics: registries as values, and the process-wide one.
//!
//! Families come from prometheus-client. A service registers its own in one line, and keeps the handle: counting then
//! costs no lookup and no allocation.
//!
//! ```
//! use mainspring_observe::metrics;
//!
//! let shipped = metrics::counter("orders_shipped", "Orders that left the house");
//! shipped.inc();
//! let by_city = metrics::counters("orders_by_city", "Orders, by where they go", ["city"]);
//! by_city.with(["Bern"]).inc();
//! let text = metrics::text(&[metrics::service()]);
//! assert!(text.contains("orders_shipped_total 1\n") && text.contains("orders_by_city_total{city=\"Bern\"} 1\n"));
//! ```
//!
//! A service's own families live in [`service`], under the prefix that `metrics.namespace` and `metrics.subsystem` make;
//! what is none of the kinds above is registered there with [`Registry::register`]. Names of the kit never change.
//!
//! Families of one HTTP server live in that server's own [`Registry`], so that two servers in one process (a test)
//! do not add up. Everything that is the process's own lives in [`registry`]: its CPU, memory and descriptors, read
//! when they are scraped, its container's limits, `build_info`, `log_dropped_total{reason}` and `panics_total{where}`.

mod cgroup;
mod exposition;
#[cfg(feature = "jemalloc")]
mod jemalloc;
mod own;
mod process;
mod registry;
mod scrape;

use std::sync::OnceLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;

use crate::Identity;
use cgroup::Cgroup;
use process::Process;

pub use exposition::Exposition;
pub use own::{Labelled, counter, counters, gauge, gauges, histogram, histograms, set_max_series};
pub(crate) use process::cpu_time;
pub use process::{max_descriptors, open_descriptors};
pub use prometheus_client;
pub use registry::{Registry, text};

/// Upper bounds of duration histograms, in seconds: what OpenTelemetry recommends for HTTP.
pub const DURATION_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

type OneLabel = Family<[(&'static str, String); 1], Counter>;

/// The process-wide registry and the counters that this crate itself keeps in it.
struct ProcessWide {
    registry: Registry,
    service: Registry,
    dropped: OneLabel,
    panics: OneLabel,
    dropped_series: OneLabel,
    build_info: OnceLock<()>,
}

/// The process-wide registry of the kit's own families.
pub fn registry() -> &'static Registry {
    &process_wide().registry
}

/// The process-wide registry of the service's own families.
pub fn service() -> &'static Registry {
    &process_wide().service
}

/// Shows `build_info{service,version}` in the process-wide [`registry`]. The first call counts; [`log::init`]
/// makes it.
///
/// [`log::init`]: crate::log::init
pub fn build_info(identity: &Identity) {
    process_wide().build_info.get_or_init(|| {
        let labels = [("service", identity.service.to_string()), ("version", identity.version.to_string())];
        registry().register("build", "What runs here", Info::new(labels));
    });
}

/// How many log lines were dropped for `reason`.
pub(crate) fn log_dropped(reason: &'static str) -> Counter {
    process_wide().dropped.get_or_create_owned(&[("reason", reason.to_owned())])
}

/// How many panics `where_` has caught.
pub(crate) fn panics(where_: &str) -> Counter {
    process_wide().panics.get_or_create_owned(&[("where", where_.to_owned())])
}

/// How often a family with too many label sets was asked for one more.
fn dropped_series(metric: &str) -> Counter {
    process_wide().dropped_series.get_or_create_owned(&[("metric", metric.to_owned())])
}

fn process_wide() -> &'static ProcessWide {
    static PROCESS_WIDE: OnceLock<ProcessWide> = OnceLock::new();
    PROCESS_WIDE.get_or_init(|| {
        let (registry, service) = (Registry::new(), Registry::new());
        let (dropped, panics, dropped_series) = (OneLabel::default(), OneLabel::default(), OneLabel::default());
        registry.register("log_dropped", "Log lines that were not written, by reason", dropped.clone());
        registry.register("panics", "Panics that were caught, by where", panics.clone());
        registry.register(
            "metrics_dropped_series",
            "Label sets that were counted under _overflow, by metric",
            dropped_series.clone(),
        );
        registry.register_collector(Process);
        registry.register_collector(Cgroup);
        #[cfg(feature = "jemalloc")]
        registry.register_collector(jemalloc::Jemalloc);
        ProcessWide { registry, service, dropped, panics, dropped_series, build_info: OnceLock::new() }
    })
}
