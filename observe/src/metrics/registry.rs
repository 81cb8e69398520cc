//! A registry that can be shared and shown together with others.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::{Metric, Unit};

/// A set of metric families. Clones share it.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    families: prometheus_client::registry::Registry,
    names: HashSet<String>,
    /// Put before every name when it is shown.
    prefix: String,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty registry whose families' names all begin with `prefix` and an underscore.
    pub fn with_prefix(prefix: &str) -> Self {
        let registry = Self::new();
        registry.set_prefix(prefix);
        registry
    }

    /// Has all names begin with `prefix` and an underscore, also those that are registered already; with none if it is
    /// empty. One that Prometheus would refuse is an error in the log and changes nothing.
    pub fn set_prefix(&self, prefix: &str) {
        if !prefix.is_empty() && !is_valid(prefix) {
            return tracing::error!(prefix, "metrics prefix not used: {IMPOSSIBLE}");
        }
        let mut inner = self.lock();
        inner.prefix.clear();
        if !prefix.is_empty() {
            inner.prefix = format!("{prefix}_");
        }
    }

    /// Adds a family, or a single metric.
    ///
    /// The text format adds what belongs to a kind: a counter `orders` is shown as `orders_total`, an info `build` as
    /// `build_info`. A name that is taken or that Prometheus would refuse is an error in the log, and the family is not
    /// shown: one bad name must not make a whole scrape unreadable.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        if let Some(mut inner) = self.reserve(name.to_owned()) {
            inner.families.register(name, one_line(help), metric);
        }
    }

    /// Adds a family that counts in `unit`, which is appended to its name. Otherwise like [`register`](Self::register).
    pub fn register_with_unit(&self, name: &str, help: &str, unit: Unit, metric: impl Metric) {
        if let Some(mut inner) = self.reserve(format!("{name}_{}", unit.as_str())) {
            inner.families.register_with_unit(name, one_line(help), unit, metric);
        }
    }

    /// Adds families whose values are read when they are shown. The collector must not use this registry.
    pub fn register_collector(&self, collector: impl Collector) {
        self.lock().families.register_collector(Box::new(collector));
    }

    /// Appends the families to `out` as OpenMetrics text, without the `# EOF` that ends a scrape.
    ///
    /// If a collector fails, nothing of this registry is appended, and the log says so.
    pub fn encode(&self, out: &mut String) {
        let start = out.len();
        let inner = self.lock();
        let encoded = encode_registry(out, &inner.families);
        if !inner.prefix.is_empty() {
            let plain = out.split_off(start);
            plain.lines().for_each(|line| put_prefixed(out, &inner.prefix, line));
        }
        drop(inner); // A log line may be counted as dropped; that count may live here.
        if encoded.is_err() {
            out.truncate(start);
            tracing::error!("a metrics collector failed; its registry is left out of the scrape");
        }
    }

    /// Takes `name`, unless it cannot be had.
    fn reserve(&self, name: String) -> Option<MutexGuard<'_, Inner>> {
        if !is_valid(&name) {
            tracing::error!(metric = name, "metric not registered: {IMPOSSIBLE}");
            return None;
        }
        let mut inner = self.lock();
        if inner.names.contains(&name) {
            drop(inner); // A log line may be counted as dropped; that count may live here.
            tracing::error!(metric = name, "metric not registered: another one has its name");
            return None;
        }
        inner.names.insert(name);
        Some(inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A collector that panicked has changed nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All `registries` as one OpenMetrics text, ended by one `# EOF`. A registry that is named twice is shown once.
pub fn text(registries: &[&Registry]) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for (at, registry) in registries.iter().enumerate() {
        if !registries[..at].iter().any(|before| Arc::ptr_eq(&before.0, &registry.0)) {
            registry.encode(&mut out);
        }
    }
    // Writing to a string does not fail.
    let _ = encode_eof(&mut out);
    out
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("names", &self.lock().names).finish_non_exhaustive()
    }
}

const IMPOSSIBLE: &str = "its name may only have letters, digits, _ and :, and begin with no digit";

/// Appends a line of OpenMetrics text under a longer name.
fn put_prefixed(out: &mut String, prefix: &str, line: &str) {
    // `# TYPE name kind`, or `name{labels} value`.
    let name = line.strip_prefix("# ").and_then(|meta| meta.find(' ')).map_or(0, |keyword| keyword + 3);
    for part in [&line[..name], prefix, &line[name..], "\n"] {
        out.push_str(part);
    }
}

/// A help text with a line break would be read as a sample.
fn one_line(help: &str) -> String {
    help.replace(['\n', '\r'], " ")
}

fn is_valid(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    name.chars().all(word) && name.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;
    use crate::metrics::{self, DURATION_BUCKETS};
    use prometheus_client::encoding::DescriptorEncoder;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use std::collections::BTreeMap;

    /// Reads OpenMetrics text as a scraper would: one EOF at the end, each family declared once and in one piece,
    /// each sample of the family before it.
    fn read(text: &str) -> BTreeMap<String, f64> {
        let (mut families, mut family, mut samples) = (HashSet::new(), String::new(), BTreeMap::new());
        let lines: Vec<_> = text.lines().collect();
        assert!(text.ends_with("# EOF\n"), "{text}");
        for line in &lines[..lines.len() - 1] {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (kind, name) = (words.next().unwrap(), words.next().unwrap());
                assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
                if kind == "HELP" {
                    family = name.to_owned();
                    assert!(families.insert(family.clone()), "{family} is declared twice");
                }
                assert_eq!(family, name, "{line}");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with(&family), "{name} is not of {family}");
                assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} is there twice");
            }
        }
        samples
    }

    #[test]
    fn several_registries_make_one_valid_text_with_one_eof() {
        let (server, other) = (Registry::new(), Registry::new());
        let requests =
            Family::<[(&str, &str); 1], Histogram>::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        server.register_with_unit("http_server_request_duration", "Time to answer", Unit::Seconds, requests.clone());
        requests.get_or_create_owned(&[("http_route", "/a\"\n\\b")]).observe(0.02);
        let depth: Gauge = Gauge::default();
        other.register("queue_depth", "Orders\nthat wait", depth.clone());
        depth.set(-3);
        other.set_prefix("orders");
        other.set_prefix("no good");
        metrics::build_info(&Identity::new("orders", "1.0"));
        metrics::build_info(&Identity::new("orders", "1.0"));

        let text = text(&[&server, &other, metrics::registry(), &server]);
        let samples = read(&text);
        assert_eq!(text.matches("# EOF").count(), 1);
        assert_eq!(samples["orders_queue_depth"], -3.0);
        assert_eq!(samples[r#"http_server_request_duration_seconds_bucket{le="0.025",http_route="/a\"\n\\b"}"#], 1.0);
        assert_eq!(samples[r#"build_info{service="orders",version="1.0"}"#], 1.0);
    }

    #[test]
    fn a_name_that_is_taken_or_impossible_leaves_the_text_valid() {
        let registry = Registry::new();
        let (first, second) = (Counter::<u64>::default(), Counter::<u64>::default());
        second.inc();
        registry.register("orders", "First", first);
        registry.register("orders", "Second", second.clone());
        registry.register("orders by\nkey", "Third", second.clone());
        registry.register("9lives", "Fourth", second);
        assert_eq!(read(&text(&[&registry])), BTreeMap::from([("orders_total".to_owned(), 0.0)]));
    }

    #[test]
    fn a_collector_that_fails_takes_only_its_registry_out() {
        #[derive(Debug)]
        struct Broken;
        impl Collector for Broken {
            fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
                encoder.encode_descriptor(
                    "half",
                    "Half a family",
                    None,
                    prometheus_client::metrics::MetricType::Gauge,
                )?;
                Err(fmt::Error)
            }
        }
        let (broken, whole) = (Registry::new(), Registry::new());
        broken.register_collector(Broken);
        whole.register("orders", "All of them", Counter::<u64>::default());
        let text = text(&[&broken, &whole]);
        assert_eq!(read(&text).len(), 1);
        assert!(!text.contains("half"), "{text}");
    }
}
