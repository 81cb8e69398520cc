//! Bad messages among good ones.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Kafka, PATIENCE, close, next};
use mainspring_pubsub::{Backoff, Failure, Json, Message, Policy, Publisher, Router};
use mainspring_testing::Running;
use tokio::time::{Instant, sleep};

const GOOD: usize = 1_000;
const KEYS: usize = 20;

/// A number that is too large for one, in a message as large as can be published: nothing is left for what a dead letter
/// adds.
fn largest(publisher: &Publisher) -> Message {
    let room = publisher.capabilities().limits.message_bytes.unwrap() - "key-0".len();
    Message::new(vec![b'1'; room]).with_key("key-0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_messages_become_dead_letters_as_they_were_and_good_ones_are_handled_in_order() {
    let Some(kafka) = Kafka::up() else { return };
    let (topic, dead) = (kafka.topic(4).await, kafka.topic(1).await);
    let publisher = kafka.publisher(&topic).await;
    let bad = |body: &str, key: usize| {
        Message::new(body.to_owned()).with_key(format!("key-{key}")).with_attribute("note", "☺ = 1")
    };
    let mut messages: Vec<_> =
        (0..GOOD).map(|n| Message::new(n.to_string()).with_key(format!("key-{}", n % KEYS))).collect();
    let poison = [
        (bad("not JSON \u{0}", 1), "expected"),
        (largest(&publisher), "number"),
        (bad("1000001", 2), "always fails"),
        (bad("1000002", 3), "panicked: on purpose"),
        (bad("1000003", 4), "300ms"),
        (bad("1000004", 5), "no use"),
    ];
    for (at, (message, _)) in poison.iter().enumerate() {
        messages.insert(100 + at * 100, message.clone());
    }
    for result in publisher.publish_all(messages).await {
        result.unwrap();
    }

    let handled = Arc::new(Mutex::new(Vec::<(Option<String>, u32)>::new()));
    let seen = Arc::clone(&handled);
    let handler = move |message: Message, Json(number): Json<u32>| {
        let seen = Arc::clone(&seen);
        async move {
            match number {
                1_000_001 => return Err("always fails".into()),
                1_000_002 => panics(),
                1_000_003 => std::future::pending().await,
                1_000_004 => return Err(Failure::reject("no use")),
                _ => {}
            }
            seen.lock().unwrap().push((message.key, number));
            Ok::<_, Failure>(())
        }
    };
    let policy = Policy::default().attempts(3).timeout(Duration::from_millis(300));
    let policy = policy.backoff(Backoff::fixed(Duration::from_millis(20)));
    let inbox = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    let router = Router::new().route("poison", inbox, handler).concurrency(32).policy(policy);
    let running = Running::start(router.dead_letter(kafka.publisher(&dead).await));

    let largest = poison[1].0.body.len();
    let mut letters = kafka.subscriber(&format!("kafka://{dead}?group={dead}")).await;
    let mut waiting: BTreeMap<_, _> =
        poison.into_iter().map(|(message, says)| (message.id.clone(), (message, says))).collect();
    while !waiting.is_empty() {
        let delivery = next(&mut letters).await;
        let letter = delivery.message();
        let (original, says) = waiting.remove(&letter.id).expect("one letter for each");
        assert_eq!((&letter.body, &letter.key), (&original.body, &original.key));
        assert!(original.attributes.iter().all(|(name, value)| letter.attributes.get(name) == Some(value)));
        match letter.attributes.get("dead-letter-reason") {
            Some(reason) => assert!(reason.contains(says), "`{says}` is not in `{reason}`"),
            None => assert_eq!(original.body.len(), largest, "there was room for the reason"),
        }
        delivery.ack().await.unwrap();
    }
    close(letters).await;
    let end = Instant::now() + PATIENCE;
    while handled.lock().unwrap().len() < GOOD {
        assert!(Instant::now() < end, "lost: {} of {GOOD}", handled.lock().unwrap().len());
        sleep(Duration::from_millis(20)).await;
    }
    running.stop().await;
    let handled = handled.lock().unwrap();
    assert_eq!(handled.len(), GOOD, "each once");
    let mut last = BTreeMap::new();
    for (key, number) in handled.iter() {
        let before = last.insert(key, number);
        assert!(before.is_none_or(|before| before < number), "{number} was handled after {before:?}");
    }
}

fn panics() {
    panic!("on purpose");
}
