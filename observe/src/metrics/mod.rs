//! Metrics: registries as values, and the process-wide one.
//!
//! Families come from prometheus-client. Look up the handle of a label set once, where routes are built, and keep
//! it: a request then costs no lookup and no allocation.
//!
//! ```
//! use mainspring_observe::metrics::{self, prometheus_client::metrics::counter::Counter};
//!
//! let shipped: Counter = Counter::default();
//! metrics::registry().register("orders_shipped", "Orders that left the house", shipped.clone());
//! shipped.inc();
//! assert!(metrics::text(&[metrics::registry()]).contains("orders_shipped_total 1\n"));
//! ```
//!
//! Families of one HTTP server live in that server's own [`Registry`], so that two servers in one process (a test)
//! do not add up. Everything that is the process's own lives in [`registry`]: its CPU, memory and descriptors, read
//! when they are scraped, `build_info`, `log_dropped_total{reason}` and `panics_total{where}`.

mod process;
mod registry;

use std::sync::OnceLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;

use crate::Identity;
use process::Process;

pub(crate) use process::cpu_time;
pub use prometheus_client;
pub use registry::{Registry, text};

/// Upper bounds of duration histograms, in seconds: what OpenTelemetry recommends for HTTP.
pub const DURATION_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

type Labelled = Family<[(&'static str, String); 1], Counter>;

/// The process-wide registry and the counters that this crate itself keeps in it.
struct ProcessWide {
    registry: Registry,
    dropped: Labelled,
    panics: Labelled,
    build_info: OnceLock<()>,
}

/// The process-wide registry: the kit's own families and those of users.
pub fn registry() -> &'static Registry {
    &process_wide().registry
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

fn process_wide() -> &'static ProcessWide {
    static PROCESS_WIDE: OnceLock<ProcessWide> = OnceLock::new();
    PROCESS_WIDE.get_or_init(|| {
        let (registry, dropped, panics) = (Registry::new(), Labelled::default(), Labelled::default());
        registry.register("log_dropped", "Log lines that were not written, by reason", dropped.clone());
        registry.register("panics", "Panics that were caught, by where", panics.clone());
        registry.register_collector(Process);
        ProcessWide { registry, dropped, panics, build_info: OnceLock::new() }
    })
}
