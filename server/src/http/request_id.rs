//! `x-request-id`: taken from the request when it is harmless, made otherwise, echoed always.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

/// The header's name.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones are replaced: an id is for finding things, not for carrying data.
const LONGEST: usize = 128;

/// The request's id, as the bytes that logs carry and the header that the response echoes.
pub(super) fn of(received: Option<&HeaderValue>) -> (Bytes, HeaderValue) {
    match received {
        Some(value) if is_harmless(value.as_bytes()) => (Bytes::copy_from_slice(value.as_bytes()), value.clone()),
        _ => generate(),
    }
}

/// Ids go into logs and headers of other services: letters, digits, `.`, `_` and `-` only.
fn is_harmless(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A new UUIDv7. It costs no allocation of its own: ids are cut from a block that each thread keeps.
pub(crate) fn generate() -> (Bytes, HeaderValue) {
    thread_local! {
        static BLOCK: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    }
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or(0), &random).into_uuid();
    let bytes = BLOCK.with_borrow_mut(|block| {
        if block.capacity() < uuid::fmt::Hyphenated::LENGTH {
            block.reserve(4096);
        }
        block.extend_from_slice(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
        block.split().freeze()
    });
    let value = HeaderValue::from_maybe_shared(bytes.clone());
    (bytes, value.unwrap_or(HeaderValue::from_static("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echoed(id: &str) -> String {
        let received = HeaderValue::from_bytes(id.as_bytes()).unwrap();
        of(Some(&received)).1.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_harmless_id_is_kept_and_any_other_is_replaced() {
        assert_eq!(echoed("req-7.A_b"), "req-7.A_b");
        for bad in ["", "a b", "a\"b", "é", "{\"x\":1}", &"x".repeat(129)] {
            let echo = echoed(bad);
            assert_ne!(echo, bad);
            assert!(uuid::Uuid::parse_str(&echo).is_ok(), "{echo}");
        }
    }

    #[test]
    fn made_ids_are_version_7_and_all_different() {
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| generate().0).collect();
        assert_eq!(ids.len(), 10_000);
        let id = uuid::Uuid::parse_str(std::str::from_utf8(ids.iter().next().unwrap()).unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}
