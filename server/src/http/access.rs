//! The access log: one line a request, written when its response has ended.

use std::time::Duration;

use http::{HeaderValue, Version};
use mainspring_observe::log::{self, AccessFormat, LineWriter};
use tracing::Level;

use super::record::{Line, Outcome, Record};
use crate::metrics::METHODS;

/// Where access lines go, and which. They never pass through the tracing formatter, which would cost more than the
/// request.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    writer: LineWriter,
    format: AccessFormat,
    sample: u32,
    slow: Duration,
}

impl AccessLog {
    /// The process' access log; `None` while `log.access` is `off`.
    pub(crate) fn open(config: &log::Config) -> Option<Self> {
        let (format, sample, slow) = (config.access_format, config.access_sample.max(1), config.access_slow.get());
        log::writer().map(|writer| Self { writer, format, sample, slow })
    }

    /// Whether lines say where the client came from.
    pub(super) fn shows_referer(&self) -> bool {
        self.format == AccessFormat::Combined
    }

    pub(super) fn write(&self, record: &Record, line: &Line, outcome: Outcome, took: Duration) {
        let ordinary = outcome == Outcome::Ok && record.status < 400 && took < self.slow;
        let sampled = ordinary && self.sample > 1;
        if sampled && fastrand::u32(..self.sample) != 0 {
            return;
        }
        match self.format {
            AccessFormat::Json => self.write_json(record, line, outcome, took, sampled),
            AccessFormat::Combined => self.write_combined(record, line),
        }
    }

    fn write_json(&self, record: &Record, line: &Line, outcome: Outcome, took: Duration, sampled: bool) {
        self.writer.write(Level::INFO, "request", &record.correlation, |fields| {
            fields.put("method", log::Value::Word(METHODS[record.method]));
            fields.put("route", &*record.route().template);
            fields.put("path", line.uri.path());
            fields.put("status", u64::from(record.status));
            fields.put("proto", log::Value::Word(protocol(line.version)));
            fields.put("bytes_in", record.bytes_in());
            fields.put("bytes_out", record.bytes_out);
            fields.put("duration_ms", log::Value::Millis(took));
            if let Some(conn) = &record.conn {
                fields.put("remote", conn.remote());
            }
            if let Some(agent) = &line.user_agent {
                fields.put("user_agent", log::Value::Bytes(agent.as_bytes()));
            }
            fields.put("outcome", log::Value::Word(outcome.as_str()));
            if sampled {
                // So that whoever counts lines can count requests.
                fields.put("sampled", u64::from(self.sample));
            }
        });
    }

    fn write_combined(&self, record: &Record, line: &Line) {
        self.writer.write_combined(&log::Combined {
            remote: record.conn.as_ref().map(|conn| conn.peer.ip()),
            method: METHODS[record.method],
            path: line.uri.path(),
            protocol: if line.version == Version::HTTP_2 { "HTTP/2.0" } else { protocol(line.version) },
            status: record.status,
            bytes_out: record.bytes_out,
            referer: line.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: line.user_agent.as_ref().map(HeaderValue::as_bytes),
        });
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
