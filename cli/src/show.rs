//! Messages, as people and programs read them.

use std::fmt::Write as _;
use std::time::SystemTime;

use mainspring::pubsub::Delivery;
use serde_json::{Map, Value, json};

/// One line for a person: time, position, key, attributes, body.
pub(crate) fn line(delivery: &Delivery) -> String {
    let message = delivery.message();
    let mut line = time(message.published_at);
    // A `String` takes whatever is written.
    if let Some(position) = delivery.position() {
        let _ = write!(line, " {position}");
    }
    if let Some(key) = &message.key {
        let _ = write!(line, " key={}", plain(key.as_bytes()));
    }
    for (name, value) in &message.attributes {
        let _ = write!(line, " {}={}", plain(name.as_bytes()), plain(value.as_bytes()));
    }
    let _ = write!(line, " | {}", plain(&message.body));
    line
}

/// One JSON object. A body that is not UTF-8 is `body_base64` instead of `body`.
pub(crate) fn object(delivery: &Delivery) -> Value {
    let message = delivery.message();
    let mut object = Map::new();
    object.insert("id".to_owned(), json!(message.id.to_string()));
    object.insert("key".to_owned(), json!(message.key));
    object.insert("attributes".to_owned(), json!(message.attributes));
    object.insert("published_at".to_owned(), json!(time(message.published_at)));
    if let Some(position) = delivery.position() {
        object.insert("partition".to_owned(), json!(position.partition));
        object.insert("offset".to_owned(), json!(position.offset));
    }
    object.insert("attempt".to_owned(), json!(delivery.attempt()));
    match std::str::from_utf8(&message.body) {
        Ok(body) => object.insert("body".to_owned(), json!(body)),
        Err(_) => object.insert("body_base64".to_owned(), json!(base64(&message.body))),
    };
    Value::Object(object)
}

/// Text on one line: what a terminal would act on, and what is not UTF-8, is escaped.
fn plain(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().fold(String::with_capacity(text.len()), |mut plain, c| {
            if c.is_control() {
                plain.extend(c.escape_default())
            } else {
                plain.push(c)
            }
            plain
        }),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

fn time(at: SystemTime) -> String {
    match jiff::Timestamp::try_from(at) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => "-".to_owned(),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let used = digit <= chunk.len();
            text.push(if used { char::from(DIGITS[bits >> (18 - 6 * digit) & 63]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_everywhere() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn terminals_are_shown_no_control_characters() {
        assert_eq!(plain("tea ☺".as_bytes()), "tea ☺");
        assert_eq!(plain(b"a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(plain(b"\xff\x00"), "\\xff\\x00");
    }
}
