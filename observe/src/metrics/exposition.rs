//! One scrape in the format that the scraper asks for.
//!
//! Families are written as OpenMetrics text, which has everything. The two older formats are made of that text, so
//! that there is one encoder for what the registries hold.

use super::registry::{Registry, text};
use super::scrape::{Exemplar, Family, Sample, families, number, pairs};
use crate::proto::Message;

/// How a scrape looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exposition {
    /// OpenMetrics text 1.0.0: with exemplars and units.
    #[default]
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
    /// Prometheus protocol buffers, each message behind its length: with exemplars.
    Protobuf,
}

impl Exposition {
    /// What an `Accept` header asks for: the format of the highest `q`, the first one of several. Without a header, and
    /// for `*/*`, OpenMetrics.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let mut best = (0.0, Self::default());
        for part in accept.unwrap_or_default().split(',') {
            let mut words = part.split(';').map(str::trim);
            let kind = words.next().unwrap_or_default();
            let parameters: Vec<_> = words.filter_map(|word| word.split_once('=')).collect();
            let value = |name: &str| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            let format = match kind {
                "application/openmetrics-text" | "*/*" => Self::OpenMetrics,
                "text/plain" | "text/*" => Self::Text,
                "application/vnd.google.protobuf"
                    if value("encoding") == Some("delimited")
                        && value("proto").is_none_or(|proto| proto == "io.prometheus.client.MetricFamily") =>
                {
                    Self::Protobuf
                }
                _ => continue,
            };
            let q = value("q").and_then(|q| q.parse().ok()).unwrap_or(1.0);
            if q > best.0 {
                best = (q, format);
            }
        }
        best.1
    }

    /// The media type to answer with.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// All `registries` as one scrape.
    pub fn render(self, registries: &[&Registry]) -> Vec<u8> {
        let text = text(registries);
        match self {
            Self::OpenMetrics => text.into_bytes(),
            Self::Text => {
                let mut out = String::with_capacity(text.len());
                families(&text).iter().for_each(|family| family.write_text(&mut out));
                out.into_bytes()
            }
            Self::Protobuf => {
                let mut out = Vec::with_capacity(text.len() / 2);
                families(&text).iter().for_each(|family| family.message().write_delimited(&mut out));
                out
            }
        }
    }
}

impl<'a> Family<'a> {
    /// What the older formats, which know no suffixes, call it.
    fn old_name(&self) -> String {
        match self.kind {
            "counter" => format!("{}_total", self.name),
            "info" => format!("{}_info", self.name),
            _ => self.name.to_owned(),
        }
    }

    fn write_text(&self, out: &mut String) {
        let name = self.old_name();
        let kind = match self.kind {
            "info" => "gauge",
            "unknown" => "untyped",
            kind => kind,
        };
        for line in ["# HELP ", &name, " ", self.help, "\n# TYPE ", &name, " ", kind, "\n"] {
            out.push_str(line);
        }
        for sample in &self.samples {
            out.push_str(sample.name);
            if !sample.labels.is_empty() {
                for part in ["{", sample.labels, "}"] {
                    out.push_str(part);
                }
            }
            for part in [" ", sample.value, "\n"] {
                out.push_str(part);
            }
        }
    }

    /// `io.prometheus.client.MetricFamily`.
    fn message(&self) -> Message {
        let mut family = Message::default();
        family.bytes(1, self.old_name().as_bytes());
        family.bytes(2, self.help.as_bytes());
        let (kind, field) = match self.kind {
            "counter" => (0, 3),
            "gauge" | "info" => (1, 2),
            "histogram" => (4, 7),
            _ => (3, 5),
        };
        family.int(3, kind);
        if self.kind == "histogram" {
            self.histograms(&mut family);
        } else {
            for sample in &self.samples {
                family.message(4, |metric| {
                    pairs(sample.labels).for_each(|pair| put_label(metric, 1, &pair));
                    metric.message(field, |value| {
                        value.double(1, number(sample.value));
                        if let (0, Some(exemplar)) = (kind, &sample.exemplar) {
                            value.message(2, |message| exemplar.write(message));
                        }
                    });
                });
            }
        }
        if !self.unit.is_empty() {
            family.bytes(5, self.unit.as_bytes());
        }
        family
    }

    /// Samples of one histogram follow one another: sum, count, and the buckets.
    fn histograms(&self, family: &mut Message) {
        let own = |sample: &Sample<'a>| pairs(sample.labels).filter(|(name, _)| *name != "le").collect::<Vec<_>>();
        for samples in self.samples.chunk_by(|one, other| own(one) == own(other)) {
            family.message(4, |metric| {
                own(&samples[0]).iter().for_each(|pair| put_label(metric, 1, pair));
                metric.message(7, |histogram| {
                    for sample in samples {
                        match &sample.name[self.name.len()..] {
                            "_count" => histogram.int(1, number(sample.value) as i64),
                            "_sum" => histogram.double(2, number(sample.value)),
                            _ => histogram.message(3, |bucket| sample.write_bucket(bucket)),
                        }
                    }
                });
            });
        }
    }
}

impl Sample<'_> {
    fn write_bucket(&self, bucket: &mut Message) {
        bucket.int(1, number(self.value) as i64);
        let bound = pairs(self.labels).find(|(name, _)| *name == "le").map_or(f64::INFINITY, |(_, le)| number(&le));
        bucket.double(2, bound);
        if let Some(exemplar) = &self.exemplar {
            bucket.message(3, |message| exemplar.write(message));
        }
    }
}

impl Exemplar<'_> {
    fn write(&self, message: &mut Message) {
        pairs(self.labels).for_each(|pair| put_label(message, 1, &pair));
        message.double(2, number(self.value));
    }
}

fn put_label(message: &mut Message, field: u32, (name, value): &(&str, String)) {
    message.message(field, |pair| {
        pair.bytes(1, name.as_bytes());
        pair.bytes(2, value.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tests::{Field, read, take, varint};
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::HistogramWithExemplars;
    use prometheus_client::metrics::family::Family as Labelled;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

    fn registry() -> Registry {
        let registry = Registry::new();
        let shipped = Labelled::<[(&str, &str); 2], Counter>::default();
        shipped.get_or_create_owned(&[("city", "Bern # {x=\"1\"} }\n\"\\"), ("by", "")]).inc_by(3);
        registry.register("shipped", "Orders that left", shipped);
        let depth: Gauge = Gauge::default();
        depth.set(-2);
        registry.register("depth", "Orders that wait", depth);
        registry.register("build", "What runs", Info::new([("version", "1.0")]));
        let took = HistogramWithExemplars::new([0.1, 1.0].into_iter());
        took.observe(0.5, Some([("trace_id", "4bf9")]), None);
        took.observe(5.0, None, None);
        registry.register_with_unit("took", "Time to answer", Unit::Seconds, took);
        registry
    }

    #[test]
    fn the_older_text_has_the_names_that_older_scrapers_know_and_nothing_they_cannot_read() {
        let text = String::from_utf8(Exposition::Text.render(&[&registry()])).unwrap();
        let expected = "# HELP shipped_total Orders that left.\n# TYPE shipped_total counter\n\
            shipped_total{city=\"Bern # {x=\\\"1\\\"} }\\n\\\"\\\\\",by=\"\"} 3\n\
            # HELP depth Orders that wait.\n# TYPE depth gauge\ndepth -2\n\
            # HELP build_info What runs.\n# TYPE build_info gauge\nbuild_info{version=\"1.0\"} 1\n\
            # HELP took_seconds Time to answer.\n# TYPE took_seconds histogram\n\
            took_seconds_sum 5.5\ntook_seconds_count 2\ntook_seconds_bucket{le=\"0.1\"} 0\n\
            took_seconds_bucket{le=\"1.0\"} 1\ntook_seconds_bucket{le=\"+Inf\"} 2\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn open_metrics_has_the_exemplar() {
        let text = String::from_utf8(Exposition::OpenMetrics.render(&[&registry()])).unwrap();
        assert!(text.contains("took_seconds_bucket{le=\"1.0\"} 1 # {trace_id=\"4bf9\"} 0.5\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn protocol_buffers_read_back() {
        let bytes = Exposition::Protobuf.render(&[&registry()]);
        let (mut rest, mut families) = (&*bytes, Vec::new());
        while !rest.is_empty() {
            let length = varint(&mut rest) as usize;
            families.push(read(take(&mut rest, length)));
        }
        let get = |message: &[(u32, Field)], number: u32| message.iter().find(|(n, _)| *n == number).unwrap().1.clone();
        let names: Vec<_> =
            families.iter().map(|family| String::from_utf8(get(family, 1).bytes().to_vec()).unwrap()).collect();
        assert_eq!(names, ["shipped_total", "depth", "build_info", "took_seconds"]);
        let shipped = read(get(&families[0], 4).bytes());
        let label = read(shipped[0].1.bytes());
        assert_eq!((label[0].1.bytes(), label[1].1.bytes()), (&b"city"[..], &b"Bern # {x=\"1\"} }\n\"\\"[..]));
        assert_eq!(read(get(&shipped, 3).bytes()), [(1, Field::Double(3.0))]);
        assert_eq!(read(get(&read(get(&families[1], 4).bytes()), 2).bytes()), [(1, Field::Double(-2.0))]);
        assert_eq!((get(&families[3], 3).int(), get(&families[3], 5).bytes()), (4, &b"seconds"[..]));
        let histogram = read(get(&read(get(&families[3], 4).bytes()), 7).bytes());
        let buckets: Vec<_> =
            histogram.iter().filter(|(n, _)| *n == 3).map(|(_, bucket)| read(bucket.bytes())).collect();
        assert_eq!((get(&histogram, 1).int(), get(&histogram, 2)), (2, Field::Double(5.5)));
        assert_eq!(buckets[0], [(2, Field::Double(0.1))]);
        assert_eq!(buckets[1][..2], [(1, Field::Int(1)), (2, Field::Double(1.0))]);
        let exemplar = read(buckets[1][2].1.bytes());
        assert_eq!(exemplar[1], (2, Field::Double(0.5)));
        assert_eq!(buckets[2], [(1, Field::Int(2)), (2, Field::Double(f64::INFINITY))]);
    }

    #[test]
    fn the_scraper_chooses() {
        let negotiate = |accept: &str| Exposition::negotiate(Some(accept));
        assert_eq!(Exposition::negotiate(None), Exposition::OpenMetrics);
        assert_eq!(negotiate("*/*"), Exposition::OpenMetrics);
        assert_eq!(negotiate("text/html, image/png"), Exposition::OpenMetrics);
        assert_eq!(negotiate("text/plain"), Exposition::Text);
        assert_eq!(negotiate("text/plain;version=0.0.4;q=0.3,*/*;q=0.1"), Exposition::Text);
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(negotiate(prometheus), Exposition::OpenMetrics);
        let protobuf =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,";
        assert_eq!(negotiate(&format!("{protobuf}{prometheus}")), Exposition::Protobuf);
        assert_eq!(
            negotiate("application/vnd.google.protobuf;proto=other;encoding=delimited"),
            Exposition::OpenMetrics
        );
    }
}
