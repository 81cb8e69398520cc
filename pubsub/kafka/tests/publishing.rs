//! Limits are refused before anything is sent; the rest is confirmed, message for message.

mod common;

use std::collections::BTreeSet;

use common::{Kafka, PATIENCE, next, text, unique};
use mainspring_pubsub::driver::{Opener, Publisher, Url};
use mainspring_pubsub::{BrokersConfig, ErrorKind, Message};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test]
async fn limits_are_named_before_anything_is_sent() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let publisher = kafka.publisher(&topic).await;
    let headers = |count| (0..count).fold(Message::new("x"), |m, n| m.with_attribute(format!("h{n}"), "v"));
    for (message, kind, says) in [
        (Message::new(vec![0; 2 << 20]), ErrorKind::TooLarge, "1000000"),
        (headers(200), ErrorKind::TooLarge, "128"),
        (Message::new("x").with_attribute("mainspring-id", "7"), ErrorKind::Invalid, "mainspring-id"),
        (Message::new("x").with_attribute("nul\0", "7"), ErrorKind::Invalid, "NUL"),
    ] {
        let error = publisher.publish(message).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, false), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    // Right up to the limits.
    publisher.publish(Message::new(vec![0; 1_000_000])).await.unwrap();
    publisher.publish(headers(128)).await.unwrap();
    let error = kafka.brokers.publisher("kafka://not a topic").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn each_of_a_batch_has_its_own_answer_in_order() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let publisher = kafka.publisher(&topic).await;
    let mut batch: Vec<_> = (0..3000).map(|n: usize| Message::new(n.to_string())).collect();
    batch[1234] = Message::new(vec![0; 2 << 20]);
    let ids: Vec<_> = batch.iter().map(|message| message.id.clone()).collect();
    let mut offset = 0;
    for (at, result) in publisher.publish_all(batch).await.into_iter().enumerate() {
        if at == 1234 {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::TooLarge);
            continue;
        }
        let receipt = result.unwrap();
        assert_eq!((receipt.id, receipt.position.unwrap().offset), (ids[at].clone(), offset));
        offset += 1;
    }
    publisher.flush(Instant::now() + PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_client_holds_waits_for_room() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(4).await;
    // No window of ours in front: 200 MB against the 128 MiB that the client holds.
    let mut config = BrokersConfig::default();
    config.kafka.brokers = vec![kafka.address.clone()];
    let opener = mainspring_kafka::opener(&config);
    let url = Url::parse(&format!("kafka://{topic}?compression=none&linger=50ms")).unwrap();
    let publisher: std::sync::Arc<dyn Publisher> = opener.publisher(&url).await.unwrap().into();
    let mut publishing = JoinSet::new();
    for _ in 0..200 {
        let publisher = std::sync::Arc::clone(&publisher);
        publishing.spawn(async move {
            let batch = (0..2).map(|_| Message::new(vec![7; 500_000])).collect();
            publisher.publish_all(batch, Instant::now() + PATIENCE).await
        });
    }
    let mut positions = BTreeSet::new();
    while let Some(results) = publishing.join_next().await {
        for result in results.unwrap() {
            assert!(positions.insert(result.unwrap().position.unwrap()));
        }
    }
    assert_eq!(positions.len(), 400);
}

#[tokio::test]
async fn dropping_a_publish_leaves_the_message_to_the_broker() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let publisher = kafka.brokers.publisher(&format!("kafka://{topic}?linger=300ms")).await.unwrap();
    let body = unique("body");
    // It lingers, so that this is not done when it is first polled.
    let dropped =
        tokio::time::timeout(std::time::Duration::from_millis(20), publisher.publish(Message::new(body.clone())));
    assert!(dropped.await.is_err());
    publisher.flush(Instant::now() + PATIENCE).await.unwrap();
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    assert_eq!(text(&next(&mut subscriber).await), body);
}
