//! Messages as Kafka's records, and back.
//!
//! The id is the header `mainspring-id`, each attribute a header of its name, the time of publishing the record's
//! timestamp. Records of other clients need none of this: without an id they are known by where they stand. What is not
//! text where messages have text (keys, header values) reads as `hex:` and its digits, and is written as the bytes that it
//! was: a dead letter keeps its key, and with it its partition. Header names that are not text are left out, and of
//! several headers of one name the last counts, as with Kafka's own clients. A record without a value, a tombstone, has
//! an empty body.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::catch_unwind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainspring_pubsub::{Error, ErrorKind, Message, MessageId};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};

use crate::bodies::Bodies;
use crate::error::error;

const ID: &str = "mainspring-id";
/// Begins what is not text.
const HEX: &str = "hex:";

/// The headers of a message.
pub(crate) fn headers(message: &Message) -> Result<OwnedHeaders, Error> {
    let mut headers = OwnedHeaders::new_with_capacity(message.attributes.len() + 1);
    headers = headers.insert(Header { key: ID, value: Some(&message.id.to_string()) });
    for (name, value) in &message.attributes {
        if name == ID {
            let what = format!("the attribute `{ID}` is the driver's own: the message's id goes there");
            return Err(error(ErrorKind::Invalid, "publish", what));
        }
        if name.contains('\0') {
            let what = format!("the attribute {name:?} cannot be a header: its name has a NUL");
            return Err(error(ErrorKind::Invalid, "publish", what));
        }
        headers = headers.insert(Header { key: name, value: Some(&*bytes(value)) });
    }
    Ok(headers)
}

/// The key of a message, as a record has it.
pub(crate) fn key(message: &Message) -> Option<Cow<'_, [u8]>> {
    message.key.as_deref().map(bytes)
}

/// When a message was published, as a record says it.
pub(crate) fn timestamp(message: &Message) -> i64 {
    let since = message.published_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The message that a record stands for. The body is copied, once: the record belongs to the client's buffers.
pub(crate) fn message(record: &BorrowedMessage<'_>, bodies: &mut Bodies) -> Message {
    let published_at = match record.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok()) {
        Some(millis) => UNIX_EPOCH + Duration::from_millis(millis),
        None => SystemTime::now(),
    };
    let (mut id, mut attributes) = (None, BTreeMap::new());
    if let Some(headers) = record.headers() {
        for at in 0..headers.count() {
            let Some(header) = header(headers, at) else { continue };
            let value = header.value.unwrap_or_default();
            match (header.key, std::str::from_utf8(value)) {
                (ID, Ok(value)) => id = Some(MessageId::from(value)),
                (name, _) => drop(attributes.insert(name.to_owned(), text(value))),
            }
        }
    }
    let place = || format!("{}/{}/{}", record.topic(), record.partition(), record.offset());
    let body = record.payload().map(|body| bodies.copy(body)).unwrap_or_default();
    let mut message = Message::received(id.unwrap_or_else(|| place().into()), body, published_at);
    message.key = record.key().map(text);
    message.attributes = attributes;
    message
}

/// A header, unless its name is not text: the client panics on those.
fn header(headers: &BorrowedHeaders, at: usize) -> Option<Header<'_, &[u8]>> {
    catch_unwind(std::panic::AssertUnwindSafe(|| headers.try_get(at))).ok().flatten()
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold(HEX.to_owned(), |mut text, byte| {
            // Writing into a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// What [`text`] was made of. Only what is no text has digits: others that look like them are text themselves.
fn bytes(text: &str) -> Cow<'_, [u8]> {
    match text.strip_prefix(HEX).and_then(from_digits) {
        Some(bytes) if std::str::from_utf8(&bytes).is_err() => Cow::Owned(bytes),
        _ => Cow::Borrowed(text.as_bytes()),
    }
}

fn from_digits(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(value(high)? << 4 | value(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_as_text_comes_out_as_the_same(given in prop_oneof![any::<String>(), "hex:[0-9a-fA-F]{0,8}"]) {
            prop_assert_eq!(text(&bytes(&given)), given);
        }

        #[test]
        fn what_is_no_text_is_written_as_it_was_read(given: Vec<u8>) {
            let read = text(&given);
            prop_assert_eq!(&*bytes(&read), given);
        }
    }
}
