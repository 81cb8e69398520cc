//! CloudEvents, in both modes.

mod common;

use std::sync::Arc;

use common::{log, next, orders, start};
use mainspring_pubsub::{
    CloudEvent, DecodeError, ErrorKind, Failure, FromMessage, Message, Policy, Request, Router, State, Undecodable,
};

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    id: String,
    quantity: u32,
}

fn placed() -> CloudEvent<Order> {
    let order = Order { id: "A1".to_owned(), quantity: 2 };
    let mut event = CloudEvent::new("/shop", "com.example.order.placed", order);
    event.subject = Some("A1".to_owned());
    event.time = Some("2026-01-02T03:04:05Z".to_owned());
    event.extensions.insert("partitionkey".to_owned(), "A1".to_owned());
    event
}

fn read<T: serde::de::DeserializeOwned>(message: Message) -> Result<CloudEvent<T>, Failure> {
    CloudEvent::from_message(&Request::new(message), &())
}

fn structured(body: &'static str) -> Message {
    Message::new(body).with_attribute("content-type", "application/cloudevents+json; charset=utf-8")
}

/// The field that an error names, and what it says.
fn fault(message: Message) -> (String, String) {
    let failure = read::<Order>(message).expect_err("it is read");
    let error = failure.error().downcast_ref::<DecodeError>().expect("a decode error");
    (error.field().to_owned(), error.to_string())
}

#[test]
fn what_is_written_in_either_mode_is_read_again() {
    let event = placed();
    for message in [event.structured().unwrap(), event.binary().unwrap()] {
        assert_eq!((message.id.to_string(), message.key.as_deref()), (event.id.clone(), Some("A1")));
        assert_eq!(read::<Order>(message).unwrap(), event);
    }
    let message = event.binary().unwrap();
    assert_eq!(message.body, serde_json::to_vec(&event.data).unwrap(), "binary mode leaves the data as it is");
    assert_eq!(message.attributes["ce_type"], "com.example.order.placed");
    assert_eq!(message.attributes["content-type"], "application/json");
}

#[test]
fn events_of_others_are_read() {
    let event: CloudEvent<Order> = read(structured(
        r#"{"specversion":"1.0","id":"7","source":"/x","type":"t","datacontenttype":"application/vnd.order+json",
            "sequence":42,"sampled":true,"subject":null,"data":{"id":"A1","quantity":2}}"#,
    ))
    .unwrap();
    assert_eq!((event.id.as_str(), event.subject.as_deref(), event.data.quantity), ("7", None, 2));
    assert_eq!((&*event.extensions["sequence"], &*event.extensions["sampled"]), ("42", "true"));
    let encoded =
        r#"{"specversion":"1.0","id":"7","source":"/x","type":"t","data_base64":"eyJpZCI6IkExIiwicXVhbnRpdHkiOjJ9"}"#;
    assert_eq!(read::<Order>(structured(encoded)).unwrap().data.id, "A1");
    let mut google = Message::new(r#"{"id":"A1","quantity":2}"#);
    for (name, value) in [("specversion", "1.0"), ("id", "7"), ("source", "/x"), ("type", "t"), ("region", "eu")] {
        google = google.with_attribute(format!("ce-{name}"), value);
    }
    let event: CloudEvent<Order> = read(google.clone()).unwrap();
    assert_eq!((event.event_type.as_str(), &*event.extensions["region"]), ("t", "eu"));
    google.body = mainspring_pubsub::Bytes::new();
    assert_eq!(read::<Option<Order>>(google).unwrap().data, None, "an event need not have data");
}

#[test]
fn what_cannot_be_read_names_the_field() {
    for (message, field, what) in [
        (structured(r#"{"specversion":"1.0","source":"/x","type":"t"}"#), "id", "is required"),
        (structured(r#"{"specversion":"0.3","id":"7","source":"/x","type":"t"}"#), "specversion", "only version 1.0"),
        (structured(r#"{"specversion":"1.0","id":{},"source":"/x","type":"t"}"#), "id", "must be text"),
        (
            structured(
                r#"{"specversion":"1.0","id":"7","source":"/x","type":"t","data":{"id":"A1","quantity":"two"}}"#,
            ),
            "data.quantity",
            "invalid type",
        ),
        (
            structured(r#"{"specversion":"1.0","id":"7","source":"/x","type":"t","data_base64":"%"}"#),
            "data_base64",
            "not base64",
        ),
        (
            structured(
                r#"{"specversion":"1.0","id":"7","source":"/x","type":"t","datacontenttype":"text/xml","data":"<a/>"}"#,
            ),
            "datacontenttype",
            "only data in JSON",
        ),
        (structured("not json"), ".", "cannot read the body"),
        (Message::new("{}"), "specversion", "no CloudEvent"),
        (
            Message::new("[]").with_attribute("content-type", "application/cloudevents-batch+json"),
            "content-type",
            "a batch of events",
        ),
        (
            Message::new("{}").with_attribute("ce_specversion", "1.0").with_attribute("ce_id", "7"),
            "source",
            "is required",
        ),
    ] {
        let (named, said) = fault(message);
        assert_eq!(named, field, "{said}");
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn what_the_format_does_not_allow_is_not_written() {
    let mut event = placed();
    event.extensions.insert("Trace-Id".to_owned(), "x".to_owned());
    let error = event.structured().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("`Trace-Id` is no name for an extension"), "{error}");
    let nameless = CloudEvent::new("", "t", ());
    assert!(nameless.binary().unwrap_err().to_string().contains("the event's `source` is empty"));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_is_the_policys_to_judge() {
    for (undecodable, attempts) in [(Undecodable::Reject, "1"), (Undecodable::Retry, "3")] {
        let (brokers, publisher, inbox) = orders().await;
        let log = log();
        let router = Router::new()
            .route("ship", inbox, |State(log): State<Arc<common::Log<Order>>>, event: CloudEvent<Order>| async move {
                log.note(event.data);
                Ok(())
            })
            .with_state(Arc::clone(&log))
            .dead_letter(brokers.publisher("memory://rejects").await.unwrap())
            .policy(Policy::default().attempts(3).undecodable(undecodable));
        let router = start(router);
        let mut bad = placed().structured().unwrap();
        bad.body = bad.body.iter().map(|byte| if *byte == b'2' { b'x' } else { *byte }).collect();
        publisher.publish(bad.clone()).await.unwrap();
        publisher.publish(placed().binary().unwrap()).await.unwrap();
        assert_eq!(log.wait(1).await.len(), 1, "the next one is handled");
        let letter = next(&mut brokers.subscriber("memory://rejects").await.unwrap()).await;
        assert_eq!(letter.message().body, bad.body);
        assert_eq!(letter.message().attributes["dead-letter-attempts"], attempts);
        router.stop().await;
    }
}
