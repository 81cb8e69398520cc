//! Bodies in Protocol Buffers.

use crate::codec::DecodeError;
use crate::{Failure, FromMessage, Message, Request};

/// The body, read as a Protocol Buffers message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proto<T>(pub T);

impl Message {
    /// A message whose body is `value` in Protocol Buffers.
    pub fn proto(value: &impl prost::Message) -> Self {
        Self::new(value.encode_to_vec())
    }
}

impl<S, T: prost::Message + Default> FromMessage<S> for Proto<T> {
    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        let body = request.message().body.clone();
        T::decode(body).map(Proto).map_err(|error| Failure::undecodable(explain(&error)))
    }
}

/// What is wrong where. The error only says it as text: `…: Item.quantity: Order.items: what`, the innermost first.
fn explain(error: &prost::DecodeError) -> DecodeError {
    let text = error.to_string();
    let mut rest = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
    let mut path = Vec::new();
    while let Some((place, what)) = rest.split_once(": ")
        && let Some((message, field)) = place.split_once('.')
        && is_name(message)
        && is_name(field)
    {
        path.push(field);
        rest = what;
    }
    path.reverse();
    let field = if path.is_empty() { ".".to_owned() } else { path.join(".") };
    DecodeError::new(field, rest)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Order {
        #[prost(string, tag = "1")]
        id: String,
        #[prost(message, repeated, tag = "2")]
        items: Vec<Item>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Item {
        #[prost(uint32, tag = "1")]
        quantity: u32,
    }

    /// The same tags with another type for `quantity`.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Other {
        #[prost(message, repeated, tag = "2")]
        items: Vec<OtherItem>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct OtherItem {
        #[prost(string, tag = "1")]
        quantity: String,
    }

    fn read(message: Message) -> Result<Proto<Order>, Failure> {
        Proto::from_message(&Request::new(message), &())
    }

    #[test]
    fn what_goes_in_comes_out() {
        let order = Order { id: "A1".to_owned(), items: vec![Item { quantity: 2 }] };
        assert_eq!(read(Message::proto(&order)).unwrap().0, order);
        assert_eq!(read(Message::new("")).unwrap().0, Order::default());
    }

    #[test]
    fn a_body_that_cannot_be_read_names_the_field() {
        let other = Other { items: vec![OtherItem { quantity: "two".to_owned() }] };
        let failure = read(Message::proto(&other)).unwrap_err();
        let error = failure.error().downcast_ref::<DecodeError>().unwrap();
        assert_eq!(error.field(), "items.quantity", "{error}");
        assert!(error.to_string().contains("invalid wire type"), "{error}");
        let failure = read(Message::new(&b"\xff"[..])).unwrap_err();
        assert_eq!(failure.error().downcast_ref::<DecodeError>().unwrap().field(), ".", "{failure}");
    }
}
