//! What the broker in memory does wrong when it is told to.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{assert_empty, log, next, start, text};
use mainspring_pubsub::memory::{Broker, Config, Faults};
use mainspring_pubsub::{Attempt, ErrorKind, Message, Router, State, Subscriber, Text};
use tokio::time::{Instant, sleep, timeout};

fn broker() -> (Broker, Faults) {
    let faults = Faults::new();
    (Broker::new(Config::default()).with_faults(faults.clone()), faults)
}

async fn publish(broker: &Broker, messages: impl IntoIterator<Item = (&str, &str)>) {
    for (key, body) in messages {
        broker.publisher("orders").publish(Message::new(body.to_owned()).with_key(key)).await.unwrap();
    }
}

/// Takes and acks so many.
async fn take(inbox: &mut Subscriber, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let delivery = next(inbox).await;
        taken.push(text(&delivery));
        delivery.ack().await.unwrap();
    }
    taken
}

#[tokio::test]
async fn the_nth_publish_fails_and_publishes_nothing() {
    let (broker, faults) = broker();
    let (publisher, mut inbox) = (broker.publisher("orders"), broker.subscriber("orders", "ship"));
    publisher.publish(Message::new("a")).await.unwrap();
    faults.fail_publish(2, ErrorKind::Unavailable);
    faults.fail_publish(4, ErrorKind::PermissionDenied);
    let batch = ["b", "c", "d"].map(Message::new).into();
    let results = publisher.publish_all(batch).await;
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
    let error = publisher.publish(Message::new("e")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::PermissionDenied, false));
    publisher.publish(Message::new("f")).await.unwrap();
    assert_eq!(take(&mut inbox, 4).await, ["a", "b", "d", "f"]);
    assert_empty(&mut inbox);
}

#[tokio::test]
async fn a_duplicate_is_the_same_message_twice() {
    let (broker, faults) = broker();
    let mut inbox = broker.subscriber("orders", "ship");
    faults.duplicate(1);
    publish(&broker, [("k", "a"), ("k", "b")]).await;
    let first = next(&mut inbox).await;
    let id = first.message().id.clone();
    first.ack().await.unwrap();
    let second = next(&mut inbox).await;
    assert_eq!((&second.message().id, second.attempt()), (&id, Some(1)));
    second.ack().await.unwrap();
    assert_eq!(take(&mut inbox, 1).await, ["b"]);
    assert_empty(&mut inbox);
}

#[tokio::test(start_paused = true)]
async fn a_lost_ack_brings_the_message_again_though_it_is_answered_well() {
    for lease in [0, 10] {
        let visibility_timeout = mainspring_config::Duration::from_secs(lease);
        let faults = Faults::new();
        let broker = Broker::new(Config { visibility_timeout, ..Config::default() }).with_faults(faults.clone());
        let log = log();
        let started = Instant::now();
        let router = Router::new()
            .route(
                "ship",
                broker.subscriber("orders", "ship"),
                move |State(log): State<Arc<common::Log<(String, u32, u64)>>>,
                      Text(text): Text,
                      Attempt(attempt): Attempt| async move {
                    log.note((text, attempt, started.elapsed().as_secs()));
                    Ok(())
                },
            )
            .with_state(Arc::clone(&log));
        let router = start(router);
        faults.drop_acks(1);
        publish(&broker, [("k", "a"), ("k", "b")]).await;
        let seen = log.wait(3).await;
        let expected = [("a", 1, 0), ("a", 2, lease), ("b", 1, lease)].map(|(text, n, at)| (text.to_owned(), n, at));
        assert_eq!(seen, expected, "a lease of {lease} s");
        router.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn delayed_messages_keep_the_order_of_their_key() {
    let (broker, faults) = broker();
    let mut inbox = broker.subscriber("orders", "ship");
    faults.delay(Duration::from_secs(10));
    publish(&broker, [("k", "a")]).await;
    sleep(Duration::from_secs(6)).await;
    publish(&broker, [("k", "b")]).await;
    faults.delay(Duration::ZERO);
    publish(&broker, [("k", "c"), ("other", "d")]).await;
    assert_eq!(take(&mut inbox, 1).await, ["d"], "another key is not held up");
    assert!(timeout(Duration::from_secs(3), inbox.next()).await.is_err());
    let started = Instant::now();
    assert_eq!(take(&mut inbox, 1).await, ["a"]);
    assert_eq!(take(&mut inbox, 1).await, ["b"]);
    assert_eq!(started.elapsed().as_secs(), 7, "each is held back from its own publish on");
    assert_eq!(take(&mut inbox, 1).await, ["c"]);
}

#[tokio::test]
async fn keys_overtake_each_other_and_themselves_never() {
    let (broker, faults) = broker();
    let mut inbox = broker.subscriber("orders", "ship");
    publish(&broker, [("x", "x1"), ("x", "x2"), ("y", "y1"), ("y", "y2"), ("z", "z1")]).await;
    faults.reorder(true);
    let taken = take(&mut inbox, 5).await;
    assert_ne!(taken, ["x1", "x2", "y1", "y2", "z1"]);
    for key in ["x", "y"] {
        let of_key: Vec<_> = taken.iter().filter(|text| text.starts_with(key)).collect();
        assert_eq!(of_key, [&format!("{key}1"), &format!("{key}2")], "{taken:?}");
    }
    faults.reorder(false);
    publish(&broker, [("x", "x3"), ("y", "y3")]).await;
    assert_eq!(take(&mut inbox, 2).await, ["x3", "y3"]);
}
