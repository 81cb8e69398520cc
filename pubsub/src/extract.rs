//! What handlers can ask for as arguments.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::codec::{DecodeError, json};
use crate::request::Request;
use crate::{Failure, Message};

/// Something that a handler can take as an argument, made from the message or from the router's state.
///
/// Extractors only look: the order of arguments does not matter, and the body can be asked for more than once.
#[diagnostic::on_unimplemented(
    message = "a message handler cannot take `{Self}` as an argument",
    label = "`FromMessage<{S}>` is not implemented for `{Self}`",
    note = "take `Json<T>`, `Proto<T>`, `CloudEvent<T>`, `Text`, `Bytes`, `Key`, `Attributes`, `Attempt`, `Message`, `Outbox` or `State<S>`, or implement `FromMessage` for your own type",
    note = "`State<S>` needs `Router::with_state` with that same `S`"
)]
pub trait FromMessage<S>: Sized {
    /// Whether making the argument needs an [`Outbox`](crate::Outbox): only routers that are
    /// [`exactly_once`](crate::Router::exactly_once) have one, and the others refuse to start.
    const OUTBOX: bool = false;

    /// Makes the argument. What cannot be read is [`Failure::undecodable`].
    fn from_message(request: &Request, state: &S) -> Result<Self, Failure>;
}

/// The body, read as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// The body, which must be UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

/// The message's key, if it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key(pub Option<String>);

/// The message's attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub BTreeMap<String, String>);

/// Which attempt at the message this is; 1 is the first. On Kafka, which counts nothing, those of earlier owners of the
/// partition do not count: a message that ends the process is each time at its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(pub u32);

/// What was given to [`Router::with_state`](crate::Router::with_state).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State<S>(pub S);

impl<S, T: DeserializeOwned> FromMessage<S> for Json<T> {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        json(&request.message().body).map(Json).map_err(Failure::undecodable)
    }
}

impl<S> FromMessage<S> for Text {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        match std::str::from_utf8(&request.message().body) {
            Ok(text) => Ok(Self(text.to_owned())),
            Err(error) => Err(Failure::undecodable(DecodeError::new(".", error.to_string()))),
        }
    }
}

impl<S> FromMessage<S> for Bytes {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        Ok(request.message().body.clone())
    }
}

impl<S> FromMessage<S> for Key {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        Ok(Self(request.message().key.clone()))
    }
}

impl<S> FromMessage<S> for Attributes {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        Ok(Self(request.message().attributes.clone()))
    }
}

impl<S> FromMessage<S> for Attempt {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        Ok(Self(request.attempt()))
    }
}

impl<S: Clone> FromMessage<S> for State<S> {
    fn from_message(_request: &Request, state: &S) -> Result<Self, Failure> {
        Ok(Self(state.clone()))
    }
}

impl<S> FromMessage<S> for Message {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        Ok(request.message().clone())
    }
}

/// The message without a copy.
impl<S> FromMessage<S> for Arc<Message> {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        Ok(request.shared())
    }
}

macro_rules! tuples {
    ($($part:ident)*) => {
        /// Several parts of a message: what a handler of batches takes of each.
        impl<S, $($part: FromMessage<S>,)*> FromMessage<S> for ($($part,)*) {
            const OUTBOX: bool = false $(|| $part::OUTBOX)*;

            fn from_message(request: &Request, state: &S) -> Result<Self, Failure> {
                Ok(($($part::from_message(request, state)?,)*))
            }
        }
    };
}

tuples!(A1 A2);
tuples!(A1 A2 A3);
tuples!(A1 A2 A3 A4);

impl<S> FromMessage<S> for Request {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        Ok(request.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Order {
        #[allow(dead_code)]
        items: Vec<Item>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Item {
        #[allow(dead_code)]
        quantity: u32,
    }

    fn said(body: &'static str) -> String {
        let request = Request::new(Message::new(body));
        Json::<Order>::from_message(&request, &()).unwrap_err().to_string()
    }

    #[test]
    fn a_body_that_cannot_be_read_names_the_field() {
        assert!(said(r#"{"items": [{"quantity": "two"}]}"#).contains("field `items[0].quantity`: invalid type"));
        assert!(said(r#"{"items": [{}]}"#).contains("field `items[0].quantity`: missing field `quantity`"));
        assert_eq!(said(""), "cannot read the body: it is empty, and JSON is expected");
        assert!(said("{}").contains("field `items`: missing field `items`"));
        assert!(said(r#"{"items": []} x"#).contains("trailing characters"));
    }

    #[test]
    fn text_must_be_utf_8() {
        let request = Request::new(Message::new(&b"\xff\xfe"[..]));
        assert!(Text::from_message(&request, &()).is_err());
        assert_eq!(Bytes::from_message(&request, &()).unwrap(), &b"\xff\xfe"[..]);
    }
}
