//! Apache's `combined` format.

use std::io::Write;
use std::net::IpAddr;
use std::time::SystemTime;

use super::clock;

/// A request as Apache's `combined` format shows it.
///
/// `host - - [time] "GET /path HTTP/1.1" 200 5 "referer" "user agent"`: one line, whatever the client sent. What it sent
/// is escaped as Apache does it, so that it can end neither the quotes nor the line.
#[derive(Clone, Copy, Debug)]
pub struct Combined<'a> {
    /// Where the client is, where that is known.
    pub remote: Option<IpAddr>,
    /// The request's method; not escaped.
    pub method: &'a str,
    /// What was asked for. Leave the query out: secrets travel in it.
    pub path: &'a str,
    /// The protocol, as `HTTP/1.1`; not escaped.
    pub protocol: &'a str,
    /// The response's status.
    pub status: u16,
    /// The length of the response's body.
    pub bytes_out: u64,
    /// The header `referer`.
    pub referer: Option<&'a [u8]>,
    /// The header `user-agent`.
    pub user_agent: Option<&'a [u8]>,
}

impl Combined<'_> {
    /// Appends the line, without its end.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = match self.remote {
            Some(remote) => write!(out, "{}", remote.to_canonical()),
            None => write!(out, "-"),
        };
        out.extend_from_slice(b" - - [");
        clock::write_common(out, SystemTime::now());
        out.extend_from_slice(b"] \"");
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        put_escaped(out, self.path.as_bytes());
        let _ = write!(out, " {}\" {} ", self.protocol, self.status);
        let _ = if self.bytes_out == 0 { write!(out, "-") } else { write!(out, "{}", self.bytes_out) };
        put_quoted(out, self.referer);
        put_quoted(out, self.user_agent);
    }
}

fn put_quoted(out: &mut Vec<u8>, value: Option<&[u8]>) {
    out.extend_from_slice(b" \"");
    put_escaped(out, value.unwrap_or(b"-"));
    out.push(b'"');
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_ends_neither_quotes_nor_line() {
        let mut out = Vec::new();
        put_quoted(&mut out, Some(b"a\"b\\c\td\xe9\n"));
        put_quoted(&mut out, None);
        assert_eq!(String::from_utf8(out).unwrap(), r#" "a\"b\\c\td\xe9\x0a" "-""#);
    }
}
