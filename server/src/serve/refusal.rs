//! The kit's own words where no request reaches a handler: a head that cannot be read, came too late, or came when
//! there was no room.
//!
//! hyper answers a head that it cannot parse by itself, with an empty body and no id. That answer is recognized on its
//! way out by what it lacks, `x-request-id`, and replaced by one like all others.

use mainspring_web::Problem;

/// An answer in HTTP/1.1 that closes the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Head and body.
    pub(super) bytes: Vec<u8>,
    pub(super) status: u16,
    /// What the peer may come and ask about.
    pub(super) id: String,
    /// How the refusal is counted.
    pub(super) reason: &'static str,
}

fn render(status: u16, reason: &str, retry_after: Option<u32>, detail: &str) -> Refusal {
    let status_code = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
    let problem = Problem::new(status_code).title(reason.to_owned()).detail(detail);
    // A problem of strings and numbers serializes without fail.
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let (id, _) = crate::http::new_request_id();
    let id = String::from_utf8_lossy(&id);
    let retry_after = retry_after.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
    let bytes = format!(
        "HTTP/1.1 {status} {reason}\r\nconnection: close\r\n{retry_after}x-request-id: {id}\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let counted = match status {
        503 => "cap",
        408 => "timeout",
        431 => "head_too_large",
        _ => "malformed",
    };
    Refusal { bytes: bytes.into_bytes(), status, id: id.into_owned(), reason: counted }
}

/// A request head that did not come in time.
pub(super) fn request_timeout() -> Refusal {
    render(408, "Request Timeout", None, "the request head did not arrive within header_timeout")
}

/// One connection more than there may be.
pub(super) fn too_many_connections() -> Refusal {
    render(503, "Service Unavailable", Some(1), "max_connections has been reached")
}

/// What to send in place of `written`, if that is hyper's own answer to a head it could not read.
pub(super) fn in_place_of(written: &[u8]) -> Option<Refusal> {
    if !written.starts_with(b"HTTP/1.1 4") && !written.starts_with(b"HTTP/1.0 4") {
        return None;
    }
    let answer = std::str::from_utf8(written).ok()?;
    if !answer.ends_with("\r\n\r\n") || answer.contains("x-request-id: ") || answer.matches("HTTP/1.").count() != 1 {
        return None;
    }
    let status = answer.get(9..12)?.parse().ok()?;
    let (reason, detail) = match status {
        431 => (
            "Request Header Fields Too Large",
            "the request head is larger than max_header_bytes, or has more than 100 fields",
        ),
        414 => ("URI Too Long", "the request target is too long"),
        _ => ("Bad Request", "the request head is not HTTP"),
    };
    Some(render(status, reason, None, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_refusals_are_replaced() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let replaced = String::from_utf8(in_place_of(own).unwrap().bytes).unwrap();
        let (head, body) = replaced.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("\r\nx-request-id: "), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["status"], 431);
        for ours in [
            &b"HTTP/1.1 404 Not Found\r\nx-request-id: a\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
            b"HTTP/1.1 4",
        ] {
            assert_eq!(in_place_of(ours), None);
        }
    }

    #[test]
    fn refusals_state_their_length_and_carry_an_id() {
        for refusal in [request_timeout(), too_many_connections()] {
            let text = String::from_utf8(refusal.bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("content-length: {}", body.len())) && head.contains("x-request-id: "),
                "{head}"
            );
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
    }
}
