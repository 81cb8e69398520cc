//! The access log: one line a request, written when its response has ended.

use std::time::Duration;

use http::Version;
use mainspring_observe::log::{self, LineWriter};
use tracing::Level;

use super::record::{Line, Outcome, Record};
use crate::metrics::METHODS;

/// Where access lines go. They never pass through the tracing formatter, which would cost more than the request.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog(LineWriter);

impl AccessLog {
    /// The process' access log; `None` while `log.access` is `off`.
    pub(crate) fn open() -> Option<Self> {
        log::writer().map(Self)
    }

    pub(super) fn write(&self, record: &Record, line: &Line, outcome: Outcome, took: Duration) {
        self.0.write(Level::INFO, "request", &record.correlation, |fields| {
            fields.put("method", METHODS[record.method]);
            fields.put("route", &*record.route().template);
            fields.put("path", line.uri.path());
            fields.put("status", u64::from(record.status));
            fields.put("proto", protocol(line.version));
            fields.put("bytes_in", record.bytes_in());
            fields.put("bytes_out", record.bytes_out);
            fields.put("duration_ms", log::Value::Millis(took));
            if let Some(conn) = &record.conn {
                fields.put("remote", conn.remote());
            }
            if let Some(agent) = &line.user_agent {
                fields.put("user_agent", log::Value::Bytes(agent.as_bytes()));
            }
            fields.put("outcome", outcome.as_str());
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
