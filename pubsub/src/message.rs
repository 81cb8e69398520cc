//! What is published and handled.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::{Error, ErrorKind};

/// A message: a body of bytes, and what brokers and handlers route it by.
///
/// Body, key and attributes come out of a broker byte for byte as they went in, or are refused when published.
/// Cloning shares the body and copies the rest.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Identifies the message for good: redeliveries and dead letters keep it.
    pub id: MessageId,
    /// Messages with the same key are handled one at a time, in the order in which they were published.
    pub key: Option<String>,
    /// Headers. The publisher adds `traceparent` when it runs inside a trace and the message has none.
    pub attributes: BTreeMap<String, String>,
    /// The payload.
    pub body: Bytes,
    /// When the message was made, or when the broker took it where the broker says so.
    pub published_at: SystemTime,
}

/// What identifies a message: a UUIDv7 for messages made here, any text for messages made elsewhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Id);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Id {
    Uuid(Uuid),
    Text(Arc<str>),
}

impl Message {
    /// A message with this body, a fresh id, and neither key nor attributes.
    pub fn new(body: impl Into<Bytes>) -> Self {
        let published_at = SystemTime::now();
        Self {
            id: MessageId::at(published_at),
            key: None,
            attributes: BTreeMap::new(),
            body: body.into(),
            published_at,
        }
    }

    /// A message as a driver received it. What is known of its id and time comes from the broker, so that neither
    /// chance nor the clock is asked for them.
    pub fn received(id: impl Into<MessageId>, body: impl Into<Bytes>, published_at: SystemTime) -> Self {
        Self { id: id.into(), key: None, attributes: BTreeMap::new(), body: body.into(), published_at }
    }

    /// A message whose body is `value` as JSON.
    ///
    /// Fails with [`ErrorKind::Invalid`] where `value` has no JSON form, for example a map whose keys are structs.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(|error| {
            Error::new(ErrorKind::Invalid, "encode", "the value cannot be written as JSON").with_source(error)
        })?;
        Ok(Self::new(body))
    }

    /// Sets the key.
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets an attribute, replacing one of the same name.
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Sets the id, for messages that were made elsewhere.
    pub fn with_id(mut self, id: impl Into<MessageId>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets when the message was published, for brokers that know.
    pub fn with_published_at(mut self, at: SystemTime) -> Self {
        self.published_at = at;
        self
    }

    /// The bytes of body, key and attributes together: what windows and limits count.
    pub fn size(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + self.key.as_ref().map_or(0, String::len) + attributes
    }
}

impl MessageId {
    /// A fresh id for a message made now. Ids of different milliseconds sort by time.
    pub fn new() -> Self {
        Self::at(SystemTime::now())
    }

    fn at(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = since.as_secs() * 1000 + u64::from(since.subsec_millis());
        // Time, version 7, and 12 bits of chance; the variant, and 62 bits of chance.
        let high = millis << 16 | 0x7000 | fastrand::u64(..) >> 52;
        let low = 1 << 63 | fastrand::u64(..) >> 2;
        Self(Id::Uuid(Uuid::from_u64_pair(high, low)))
    }
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&str> for MessageId {
    /// Takes any text and gives the same text back; a UUID in its usual form is kept without allocating.
    fn from(text: &str) -> Self {
        match Uuid::try_parse(text) {
            // Other spellings of a UUID (braces, capitals) must come out as they went in. Of this length there is no third.
            Ok(uuid) if text.len() == Hyphenated::LENGTH && !text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Self(Id::Uuid(uuid))
            }
            _ => Self(Id::Text(text.into())),
        }
    }
}

impl From<String> for MessageId {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Uuid> for MessageId {
    fn from(uuid: Uuid) -> Self {
        Self(Id::Uuid(uuid))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Uuid(uuid) => fmt::Display::fmt(uuid, f),
            Id::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shows neither the body nor the values of attributes: they may be personal or secret, and `Debug` ends up in logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("key", &self.key)
            .field("attributes", &self.attributes.keys())
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_and_sort_by_time() {
        let early = MessageId::at(UNIX_EPOCH + std::time::Duration::from_millis(1_000));
        let late = MessageId::at(UNIX_EPOCH + std::time::Duration::from_millis(1_001));
        assert!(early < late);
        let Id::Uuid(uuid) = early.0 else { panic!("made ids are UUIDs") };
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
    }

    #[test]
    fn foreign_ids_keep_their_spelling() {
        for text in ["42", "", "6D2B1C8E-9F0A-7B3C-8D4E-5F6071829304", "6d2b1c8e-9f0a-7b3c-8d4e-5f6071829304"] {
            assert_eq!(MessageId::from(text).to_string(), text);
        }
    }

    #[test]
    fn debug_output_has_no_payload() {
        let message = Message::new("card 4111").with_key("k").with_attribute("token", "s3cret");
        let shown = format!("{message:?}");
        assert!(!shown.contains("4111") && !shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("9 bytes") && shown.contains("token"), "{shown}");
    }
}
