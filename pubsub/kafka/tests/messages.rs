//! What goes in comes out: bytes, order, redelivery.

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Kafka, PATIENCE, assert_quiet, close, next, publish, text};
use mainspring_daemon::Context;
use mainspring_observe::metrics;
use mainspring_pubsub::{Bytes, Error, ErrorKind, Failure, Key, Message, Router, Text};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn messages_come_out_as_they_went_in() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(4).await;
    let publisher = kafka.publisher(&topic).await;
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let sent =
        Message::new(body).with_key("ключ 🔑").with_attribute("name", "žluťoučký\n\"kůň\"").with_attribute("empty", "");
    let receipt = publisher.publish(sent.clone()).await.unwrap();
    assert_eq!(receipt.id, sent.id);

    let delivery = next(&mut subscriber).await;
    let received = delivery.message();
    assert_eq!((&received.id, &received.key), (&sent.id, &sent.key));
    assert_eq!((&received.attributes, &received.body), (&sent.attributes, &sent.body));
    let off = sent.published_at.duration_since(received.published_at).unwrap();
    assert!(off < Duration::from_millis(1), "{off:?}");
    assert_eq!((delivery.position(), delivery.attempt()), (receipt.position, Some(1)));
    delivery.ack().await.unwrap();

    publisher.publish(Message::new("")).await.unwrap();
    let empty = next(&mut subscriber).await;
    assert_eq!((empty.message().body.len(), &empty.message().key), (0, &None));
    empty.ack().await.unwrap();
    close(subscriber).await;
}

#[tokio::test]
async fn messages_of_other_clients_are_read_as_they_are() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &kafka.address).create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "kind", value: Some("first") })
        .insert(Header { key: "kind", value: Some("last") })
        .insert(Header { key: "none", value: None::<&str> })
        .insert(Header { key: "bytes", value: Some(&[0xff_u8, 0x00][..]) });
    let record = BaseRecord::<[u8], str>::to(&topic).payload("plain").key(&[0xfe_u8, 0x01][..]).headers(headers);
    assert!(producer.send(record).is_ok());
    assert!(producer.send(BaseRecord::<str, str>::to(&topic).key("tombstone")).is_ok());
    producer.flush(PATIENCE).unwrap();

    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    let first = next(&mut subscriber).await;
    let message = first.message();
    assert_eq!((message.body.as_ref(), message.key.as_deref()), (&b"plain"[..], Some("hex:fe01")));
    let attributes: Vec<_> = message.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(attributes, [("bytes", "hex:ff00"), ("kind", "last"), ("none", "")]);
    assert_eq!(message.id.to_string(), format!("{topic}/0/0"));
    let second = next(&mut subscriber).await;
    assert_eq!((second.message().key.as_deref(), second.message().body.len()), (Some("tombstone"), 0));
    close(subscriber).await;

    // Passed on, as a dead letter is, they are what they were.
    let onward = kafka.topic(1).await;
    kafka.publisher(&onward).await.publish(message.clone()).await.unwrap();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.address)
        .set("group.id", &onward)
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&onward]).unwrap();
    let record = (0..100).find_map(|_| consumer.poll(PATIENCE / 100)).expect("a record").unwrap();
    assert_eq!((record.key(), record.payload()), (Some(&[0xfe_u8, 0x01][..]), Some(&b"plain"[..])));
    let bytes = record.headers().unwrap().iter().find(|header| header.key == "bytes");
    assert_eq!(bytes.unwrap().value, Some(&[0xff_u8, 0x00][..]));
}

#[tokio::test]
async fn groups_share_and_each_group_sees_all() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(4).await;
    let publisher = kafka.publisher(&topic).await;
    publish(&publisher, 200, 50).await;

    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut readers = JoinSet::new();
    for group in ["one", "two", "two"] {
        let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}-{group}")).await;
        let sender = sender.clone();
        readers.spawn(async move {
            loop {
                let delivery = next(&mut subscriber).await;
                let _ = sender.send((group, text(&delivery)));
                delivery.ack().await.unwrap();
            }
        });
    }
    let mut seen: [BTreeSet<String>; 2] = Default::default();
    while seen.iter().any(|seen| seen.len() < 200) {
        let (group, text) = timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap();
        seen[usize::from(group == "two")].insert(text);
    }
    readers.shutdown().await;
}

#[tokio::test]
async fn nacked_and_dropped_messages_come_again_and_count() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let publisher = kafka.publisher(&topic).await;
    publisher.publish(Message::new("a")).await.unwrap();
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;

    next(&mut subscriber).await.nack().await.unwrap();
    let second = next(&mut subscriber).await;
    assert_eq!((text(&second).as_str(), second.attempt()), ("a", Some(2)));
    drop(second);
    let third = next(&mut subscriber).await;
    assert_eq!(third.attempt(), Some(3));
    third.release().await.unwrap();
    let again = next(&mut subscriber).await;
    assert_eq!(again.attempt(), Some(3));
    let since = Instant::now();
    again.nack_after(Duration::from_millis(300)).await.unwrap();
    let fourth = next(&mut subscriber).await;
    assert!(since.elapsed() >= Duration::from_millis(300) && fourth.attempt() == Some(4));
    fourth.ack().await.unwrap();
    assert_quiet(&mut subscriber).await;
    close(subscriber).await;

    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    assert_quiet(&mut subscriber).await;
    close(subscriber).await;
}

#[tokio::test]
async fn rejecting_is_not_supported_and_keeps_the_message() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    kafka.publisher(&topic).await.publish(Message::new("a")).await.unwrap();
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    let error = next(&mut subscriber).await.reject("no").await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (ErrorKind::Unsupported, "kafka"));
    close(subscriber).await;
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    assert_eq!(text(&next(&mut subscriber).await), "a");
    close(subscriber).await;
}

#[tokio::test]
async fn what_is_settled_after_closing_is_lost() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    kafka.publisher(&topic).await.publish(Message::new("a")).await.unwrap();
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    let delivery = next(&mut subscriber).await;
    subscriber.close(Instant::now() + PATIENCE).await.unwrap();
    assert!(subscriber.next().await.unwrap().is_none());
    assert_eq!(delivery.extend(PATIENCE).await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(delivery.ack().await.unwrap_err().kind(), ErrorKind::Lost);
    subscriber.close(Instant::now() + PATIENCE).await.unwrap();
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    assert_eq!(text(&next(&mut subscriber).await), "a");
    close(subscriber).await;
}

#[tokio::test]
async fn a_new_group_can_begin_with_what_is_new_and_keeps_that_beginning() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(2).await;
    let publisher = kafka.publisher(&topic).await;
    publish(&publisher, 20, 20).await;
    let url = format!("kafka://{topic}?group={topic}&auto_offset_reset=latest");
    // Nothing was received, and so nothing acked: where the group begins is noted all the same.
    close(kafka.subscriber(&url).await).await;
    publisher.publish(Message::new("new")).await.unwrap();
    let mut subscriber = kafka.subscriber(&url).await;
    let delivery = next(&mut subscriber).await;
    assert_eq!(text(&delivery), "new");
    delivery.ack().await.unwrap();
    assert_quiet(&mut subscriber).await;
    close(subscriber).await;
}

#[tokio::test]
async fn metrics_tell_how_far_behind_a_group_is_while_it_reads() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    publish(&kafka.publisher(&topic).await, 100, 10).await;
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    for _ in 0..10 {
        next(&mut subscriber).await.ack().await.unwrap();
    }
    let lag = || {
        let text = metrics::text(&[metrics::registry()]);
        let line = text.lines().find(|line| line.starts_with("pubsub_lag{") && line.contains(&topic));
        line.map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
    };
    let end = Instant::now() + PATIENCE;
    while lag().as_deref() != Some("90") {
        assert!(Instant::now() < end, "{:?}", lag());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    close(subscriber).await;
    assert_eq!(lag(), None, "whoever reads the partition next tells of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_keeps_the_order_of_each_key_in_one_partition_through_retries() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let dead = kafka.topic(1).await;
    let publisher = kafka.publisher(&topic).await;
    publish(&publisher, 300, 30).await;

    let (sender, mut receiver) = mpsc::unbounded_channel();
    let failed = Arc::new(Mutex::new(BTreeSet::new()));
    let handler = move |Key(key): Key, Text(text): Text| {
        let (sender, failed) = (sender.clone(), Arc::clone(&failed));
        async move {
            tokio::time::sleep(Duration::from_millis(fastrand(&text))).await;
            if text.ends_with('7') && failed.lock().unwrap().insert(text.clone()) {
                return Err(Failure::retry("once"));
            }
            if text == "42" {
                return Err(Failure::reject("never"));
            }
            let _ = sender.send((key, text));
            Ok(())
        }
    };
    let inbox = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    let router = Router::new().route("r", inbox, handler).concurrency(16).dead_letter(kafka.publisher(&dead).await);
    let (trigger, cx) = Context::test("r");
    let mut running = JoinSet::new();
    running.spawn(router.run(cx));

    let mut seen: std::collections::BTreeMap<String, Vec<usize>> = Default::default();
    for _ in 0..299 {
        let (key, text) = timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap();
        seen.entry(key.unwrap()).or_default().push(text.parse().unwrap());
    }
    assert_eq!(seen.len(), 30);
    for (key, numbers) in seen {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
    let mut letters = kafka.subscriber(&format!("kafka://{dead}?group={dead}")).await;
    let letter = next(&mut letters).await;
    assert_eq!((letter.message().body.clone(), letter.message().key.as_deref()), (Bytes::from("42"), Some("key-12")));
    assert_eq!(letter.message().attributes["dead-letter-position"], "0/42");
    trigger.request(Instant::now() + PATIENCE);
    let ended: Result<(), Error> = running.join_next().await.unwrap().unwrap();
    ended.unwrap();
    close(letters).await;
}

/// A pause of 0 to 4 ms that differs from message to message.
fn fastrand(text: &str) -> u64 {
    text.bytes().map(u64::from).sum::<u64>() * 7 % 5
}
