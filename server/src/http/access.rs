//! The access log: one line a request, written when its response has ended.

use std::io::Write;
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
            AccessFormat::Combined => self.writer.write_line(|out| put_combined(out, record, line)),
        }
    }

    fn write_json(&self, record: &Record, line: &Line, outcome: Outcome, took: Duration, sampled: bool) {
        self.writer.write(Level::INFO, "request", &record.correlation, |fields| {
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
            if sampled {
                // So that whoever counts lines can count requests.
                fields.put("sampled", u64::from(self.sample));
            }
        });
    }
}

/// `host - - [time] "GET /path HTTP/1.1" 200 5 "referer" "user agent"`. The query is left out, as in JSON: secrets
/// travel in it.
fn put_combined(out: &mut Vec<u8>, record: &Record, line: &Line) {
    // Writing to a vector does not fail.
    let _ = match &record.conn {
        Some(conn) => write!(out, "{}", conn.peer.ip().to_canonical()),
        None => write!(out, "-"),
    };
    out.extend_from_slice(b" - - [");
    LineWriter::put_common_time(out);
    out.extend_from_slice(b"] \"");
    out.extend_from_slice(METHODS[record.method].as_bytes());
    out.push(b' ');
    put_escaped(out, line.uri.path().as_bytes());
    let protocol = if line.version == Version::HTTP_2 { "HTTP/2.0" } else { protocol(line.version) };
    let _ = write!(out, " {protocol}\" {} ", record.status);
    let _ = if record.bytes_out == 0 { write!(out, "-") } else { write!(out, "{}", record.bytes_out) };
    put_quoted(out, line.referer.as_ref());
    put_quoted(out, line.user_agent.as_ref());
}

fn put_quoted(out: &mut Vec<u8>, value: Option<&HeaderValue>) {
    out.extend_from_slice(b" \"");
    put_escaped(out, value.map_or(b"-", HeaderValue::as_bytes));
    out.push(b'"');
}

/// As Apache escapes what clients send, so that it can end neither the quotes nor the line.
fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x20..0x7f => out.push(*byte),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_ends_neither_quotes_nor_line() {
        let mut out = Vec::new();
        put_quoted(&mut out, HeaderValue::from_bytes(b"a\"b\\c\td\xe9").ok().as_ref());
        put_quoted(&mut out, None);
        assert_eq!(String::from_utf8(out).unwrap(), r#" "a\"b\\c\td\xe9" "-""#);
    }
}
