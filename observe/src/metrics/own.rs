//! A service's own metrics, each in one line.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Metric;

use super::service;

/// A counter, shown as `<name>_total`.
///
/// ```
/// # use mainspring_observe::metrics;
/// let shipped = metrics::counter("orders_shipped", "Orders that left the house");
/// shipped.inc();
/// ```
///
/// Register each name once and keep the handle: a name that is taken is an error in the log, and what is counted on the
/// second handle is not shown.
pub fn counter(name: &str, help: &str) -> Counter {
    registered(name, help, Counter::default())
}

/// A value that rises and falls.
pub fn gauge(name: &str, help: &str) -> Gauge {
    registered(name, help, Gauge::default())
}

/// A histogram with these upper bounds, for example [`DURATION_BUCKETS`](super::DURATION_BUCKETS). The name should end in
/// the unit, such as `_seconds`.
pub fn histogram(name: &str, help: &str, buckets: impl IntoIterator<Item = f64>) -> Histogram {
    registered(name, help, Histogram::new(buckets))
}

/// Counters with labels, at most [`max_series`](set_max_series) of them.
///
/// ```
/// # use mainspring_observe::metrics;
/// let by_city = metrics::counters("orders_by_city", "Orders, by where they go", ["city"]);
/// by_city.with(["Bern"]).inc();
/// ```
pub fn counters<const N: usize>(name: &str, help: &str, labels: [&'static str; N]) -> Labelled<N, Counter> {
    Labelled::new(name, help, labels, Make(Arc::new(Counter::default)))
}

/// Gauges with labels; see [`counters`].
pub fn gauges<const N: usize>(name: &str, help: &str, labels: [&'static str; N]) -> Labelled<N, Gauge> {
    Labelled::new(name, help, labels, Make(Arc::new(Gauge::default)))
}

/// Histograms with labels; see [`counters`] and [`histogram`].
pub fn histograms<const N: usize>(
    name: &str,
    help: &str,
    labels: [&'static str; N],
    buckets: impl IntoIterator<Item = f64>,
) -> Labelled<N, Histogram> {
    let buckets: Vec<f64> = buckets.into_iter().collect();
    Labelled::new(name, help, labels, Make(Arc::new(move || Histogram::new(buckets.iter().copied()))))
}

/// Sets how many label sets a family of this module may have before the next one is counted under `_overflow`; 1000
/// unless set. The server sets it, from `metrics.max_series`.
pub fn set_max_series(most: usize) {
    MAX_SERIES.store(most, Ordering::Relaxed);
}

static MAX_SERIES: AtomicUsize = AtomicUsize::new(1000);

/// The value of every label of the series that takes what is too much.
const OVERFLOW: &str = "_overflow";

/// Metrics of one name that differ in their labels. Clones share them.
///
/// A label that can take any value (an id, a path, a message) makes a new series for each, for ever: memory here and
/// trouble in Prometheus. So a family stops at a number: what comes after it is counted under the labels `_overflow`,
/// the log says so once, and `metrics_dropped_series_total{metric}` counts.
pub struct Labelled<const N: usize, M> {
    family: Family<Labels<N>, M, Make<M>>,
    names: [&'static str; N],
    guard: Arc<Guard>,
}

type Labels<const N: usize> = [(&'static str, String); N];

struct Guard {
    name: String,
    series: Mutex<usize>,
    full: AtomicBool,
}

struct Make<M>(Arc<dyn Fn() -> M + Send + Sync>);

impl<const N: usize, M: Metric + Clone> Labelled<N, M> {
    fn new(name: &str, help: &str, names: [&'static str; N], make: Make<M>) -> Self
    where
        Family<Labels<N>, M, Make<M>>: Metric,
    {
        let family = registered(name, help, Family::new_with_constructor(make));
        let guard = Guard { name: name.to_owned(), series: Mutex::default(), full: AtomicBool::new(false) };
        Self { family, names, guard: Arc::new(guard) }
    }

    /// The metric of these label values, in the order of the labels' names. Keep it where that is possible: each call looks
    /// it up.
    pub fn with(&self, values: [&str; N]) -> M {
        let labels = |values: [&str; N]| std::array::from_fn(|at| (self.names[at], values[at].to_owned()));
        let wanted: Labels<N> = labels(values);
        if let Some(known) = self.family.get(&wanted) {
            return known.clone();
        }
        let mut series = self.guard.series.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have made it meanwhile.
        if let Some(known) = self.family.get(&wanted) {
            return known.clone();
        }
        if *series < MAX_SERIES.load(Ordering::Relaxed) {
            *series += 1;
            return self.family.get_or_create_owned(&wanted);
        }
        drop(series);
        self.guard.overflowed();
        self.family.get_or_create_owned(&labels([OVERFLOW; N]))
    }
}

impl Guard {
    fn overflowed(&self) {
        super::dropped_series(&self.name).inc();
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                metric = self.name,
                max_series = MAX_SERIES.load(Ordering::Relaxed),
                "a metric has too many label sets; further ones are counted under the label _overflow"
            );
        }
    }
}

fn registered<M: Metric + Clone>(name: &str, help: &str, metric: M) -> M {
    service().register(name, help, metric.clone());
    metric
}

impl<const N: usize, M> Clone for Labelled<N, M> {
    fn clone(&self) -> Self {
        Self { family: self.family.clone(), names: self.names, guard: Arc::clone(&self.guard) }
    }
}

impl<M> Clone for Make<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> MetricConstructor<M> for Make<M> {
    fn new_metric(&self) -> M {
        (self.0)()
    }
}

impl<const N: usize, M> fmt::Debug for Labelled<N, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labelled").field("name", &self.guard.name).field("labels", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{registry, text};

    #[test]
    fn each_is_registered_in_one_line() {
        counter("own_shipped", "Orders that left").inc_by(3);
        gauge("own_depth", "Orders that wait").set(-1);
        histogram("own_took_seconds", "Time to ship", [1.0]).observe(0.5);
        let by_city = counters("own_by_city", "Orders", ["city", "by"]);
        by_city.with(["Bern", "rail"]).inc();
        by_city.clone().with(["Bern", "rail"]).inc();
        gauges("own_depths", "Orders that wait", ["city"]).with(["Bern"]).set(4);
        histograms("own_times_seconds", "Time to ship", ["city"], [1.0]).with(["Bern"]).observe(2.0);
        let text = text(&[service()]);
        for line in [
            "own_shipped_total 3\n",
            "own_depth -1\n",
            "own_took_seconds_bucket{le=\"1.0\"} 1\n",
            "own_by_city_total{city=\"Bern\",by=\"rail\"} 2\n",
            "own_depths{city=\"Bern\"} 4\n",
            "own_times_seconds_sum{city=\"Bern\"} 2.0\n",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn more_label_sets_than_allowed_are_counted_in_one_series() {
        let by_id = counters("own_by_id", "A mistake", ["id"]);
        for id in 0..100_000 {
            by_id.with([&id.to_string()]).inc();
        }
        by_id.with(["7"]).inc();
        let shown = text(&[service()]);
        let series: Vec<_> = shown.lines().filter(|line| line.starts_with("own_by_id_total{")).collect();
        assert_eq!(series.len(), 1001);
        assert!(series.contains(&"own_by_id_total{id=\"_overflow\"} 99000"), "{series:?}");
        assert!(series.contains(&"own_by_id_total{id=\"7\"} 2"), "a known one stays what it is");
        assert!(text(&[registry()]).contains("metrics_dropped_series_total{metric=\"own_by_id\"} 99000\n"));
    }
}
