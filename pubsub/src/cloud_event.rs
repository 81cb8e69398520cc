//! CloudEvents 1.0, in structured and in binary mode.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::base64;
use crate::codec::{DecodeError, json};
use crate::{Error, ErrorKind, Failure, FromMessage, Message, MessageId, Request};

const CONTENT_TYPE: &str = "content-type";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch";
const JSON: &str = "application/json";

/// What binary mode writes before the names of attributes: as Kafka's binding has it. Google's has the other, and
/// both are read.
const PREFIXES: [&str; 2] = ["ce_", "ce-"];

/// Names that are no extensions.
const KNOWN: [&str; 10] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"];

/// An event in the CloudEvents format, whose data is JSON.
///
/// As a handler's argument it reads both modes: structured, where the attribute `content-type` is
/// `application/cloudevents+json` and the body holds all of it; and binary, where the body is the data, and the rest
/// stands in attributes that begin with `ce_` or `ce-`. Data that is missing is read as `null`, which an `Option` is
/// for. What lacks a required attribute, or has data that is no JSON, cannot be read, and the error names the field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloudEvent<T> {
    /// Identifies the event, together with `source`.
    pub id: String,
    /// Where it happened: a URI reference.
    pub source: String,
    /// What happened, for example `com.example.order.placed`: the attribute `type`.
    pub event_type: String,
    /// What it happened to.
    pub subject: Option<String>,
    /// When it happened, in RFC 3339, as it is written.
    pub time: Option<String>,
    /// What the data adheres to: a URI.
    pub data_schema: Option<String>,
    /// All other attributes. Numbers and booleans become text.
    pub extensions: BTreeMap<String, String>,
    /// What the event says.
    pub data: T,
}

impl<T> CloudEvent<T> {
    /// An event with a fresh id and nothing optional.
    pub fn new(source: impl Into<String>, event_type: impl Into<String>, data: T) -> Self {
        Self {
            id: MessageId::new().to_string(),
            source: source.into(),
            event_type: event_type.into(),
            subject: None,
            time: None,
            data_schema: None,
            extensions: BTreeMap::new(),
            data,
        }
    }

    /// Everything but the data, by its name in the format.
    fn attributes(&self) -> Result<BTreeMap<&str, &str>, Error> {
        let mut attributes = BTreeMap::from([("specversion", "1.0"), ("datacontenttype", JSON)]);
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.event_type)] {
            if value.is_empty() {
                return Err(Error::new(ErrorKind::Invalid, "encode", format!("the event's `{name}` is empty")));
            }
            attributes.insert(name, value);
        }
        for (name, value) in [("subject", &self.subject), ("time", &self.time), ("dataschema", &self.data_schema)] {
            attributes.extend(value.as_deref().map(|value| (name, value)));
        }
        for (name, value) in &self.extensions {
            if !is_extension(name) {
                let what = format!(
                    "`{name}` is no name for an extension: use lower-case letters and digits, and none of the format's own names"
                );
                return Err(Error::new(ErrorKind::Invalid, "encode", what));
            }
            attributes.insert(name, value);
        }
        Ok(attributes)
    }

    /// A message about this event. Its key is the extension `partitionkey`, where there is one.
    fn message(&self, body: Vec<u8>) -> Message {
        let message = Message::new(body).with_id(self.id.as_str());
        match self.extensions.get("partitionkey") {
            Some(key) => message.with_key(key),
            None => message,
        }
    }
}

impl<T: Serialize> CloudEvent<T> {
    /// A message with all of the event in its body. Its id is the event's, its key the extension `partitionkey`.
    ///
    /// Fails with [`ErrorKind::Invalid`] where the data has no JSON form, where `id`, `source` or `type` is empty, and
    /// where an extension's name is not allowed.
    pub fn structured(&self) -> Result<Message, Error> {
        let mut event = BTreeMap::new();
        for (name, value) in self.attributes()? {
            event.insert(name, serde_json::value::to_raw_value(value).map_err(no_json)?);
        }
        event.insert("data", serde_json::value::to_raw_value(&self.data).map_err(no_json)?);
        let body = serde_json::to_vec(&event).map_err(no_json)?;
        Ok(self.message(body).with_attribute(CONTENT_TYPE, STRUCTURED))
    }

    /// A message with the data as its body and the rest in attributes that begin with `ce_`.
    ///
    /// Fails as [`structured`](Self::structured) does.
    pub fn binary(&self) -> Result<Message, Error> {
        let attributes = self.attributes()?;
        let mut message = self.message(serde_json::to_vec(&self.data).map_err(no_json)?);
        for (name, value) in attributes {
            message = match name {
                "datacontenttype" => message.with_attribute(CONTENT_TYPE, value),
                name => message.with_attribute(format!("{}{name}", PREFIXES[0]), value),
            };
        }
        Ok(message)
    }
}

impl<S, T: DeserializeOwned> FromMessage<S> for CloudEvent<T> {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        read(request.message()).map_err(Failure::undecodable)
    }
}

fn read<T: DeserializeOwned>(message: &Message) -> Result<CloudEvent<T>, DecodeError> {
    let content_type = message.attributes.get(CONTENT_TYPE).map(|text| text.to_ascii_lowercase()).unwrap_or_default();
    if content_type.starts_with(BATCH) {
        return Err(DecodeError::new(CONTENT_TYPE, "a batch of events; publish each in a message of its own"));
    }
    if content_type.starts_with(STRUCTURED) {
        return read_structured(&message.body);
    }
    let Some(prefix) = PREFIXES.iter().find(|prefix| message.attributes.contains_key(&format!("{prefix}specversion")))
    else {
        let what = format!("no CloudEvent: neither is `{CONTENT_TYPE}` {STRUCTURED}, nor is there a `ce_specversion`");
        return Err(DecodeError::new("specversion", what));
    };
    let named = message.attributes.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
    let mut attributes: BTreeMap<_, _> = named.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    if !content_type.is_empty() {
        attributes.insert("datacontenttype".to_owned(), content_type);
    }
    let data = if message.body.is_empty() { &b"null"[..] } else { &message.body };
    event(attributes, data)
}

fn read_structured<T: DeserializeOwned>(body: &[u8]) -> Result<CloudEvent<T>, DecodeError> {
    let mut parts: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).map_err(|error| DecodeError::new(".", error.to_string()))?;
    let (data, encoded) = (parts.remove("data"), parts.remove("data_base64"));
    let mut attributes = BTreeMap::new();
    for (name, value) in parts {
        if let Some(text) = scalar(value).map_err(|what| DecodeError::new(&*name, what))? {
            attributes.insert(name, text);
        }
    }
    let Some(encoded) = encoded else {
        return event(attributes, data.map_or("null", RawValue::get).as_bytes());
    };
    let text: String = json(encoded.get().as_bytes()).map_err(|error| error.within("data_base64"))?;
    let data = base64::decode(&text).ok_or_else(|| DecodeError::new("data_base64", "not base64"))?;
    event(attributes, &data)
}

/// An attribute's value as text; `None` for `null`, which is the same as leaving it out.
fn scalar(value: &RawValue) -> Result<Option<String>, String> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map(Some).map_err(|error| error.to_string()),
        Some(b'{' | b'[') => Err("an attribute must be text, a number or a boolean".to_owned()),
        Some(b'n') | None => Ok(None),
        Some(_) => Ok(Some(text.to_owned())),
    }
}

fn event<T: DeserializeOwned>(
    mut attributes: BTreeMap<String, String>,
    data: &[u8],
) -> Result<CloudEvent<T>, DecodeError> {
    let mut required = |name: &str| match attributes.remove(name) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(DecodeError::new(name, "is required and is missing or empty")),
    };
    let (version, id) = (required("specversion")?, required("id")?);
    let (source, event_type) = (required("source")?, required("type")?);
    if version != "1.0" {
        return Err(DecodeError::new("specversion", "only version 1.0 of CloudEvents is known"));
    }
    let content_type = attributes.remove("datacontenttype");
    if !content_type.as_deref().is_none_or(is_json) {
        return Err(DecodeError::new("datacontenttype", "only data in JSON can be read"));
    }
    let data = json(data).map_err(|error| error.within("data"))?;
    let mut optional = |name: &str| attributes.remove(name);
    let (subject, time, data_schema) = (optional("subject"), optional("time"), optional("dataschema"));
    Ok(CloudEvent { id, source, event_type, subject, time, data_schema, extensions: attributes, data })
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == JSON || media == "text/json" || media.ends_with("+json")
}

fn is_extension(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(is_plain) && !KNOWN.contains(&name)
}

fn no_json(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Invalid, "encode", "the event's data cannot be written as JSON").with_source(error)
}
