//! B7: handlers that take 10 ms, one partition, a thousand keys.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainspring_pubsub::{Failure, Key, Message, Publisher, Router, Subscriber, Text, memory};

#[cfg(feature = "kafka")]
use super::Kafka;
use super::{Handled, Running, sample};
use crate::rounds::{Comparison, Row, Sample};

const WORK: Duration = Duration::from_millis(10);
const KEYS: usize = 1000;
const LANES: usize = 64;
/// Messages in lanes; one at a time a tenth of a second is enough to see how fast that is.
const MANY: usize = 3000;
const FEW: usize = 50;

pub(super) fn in_memory(rounds: usize) -> io::Result<Vec<Row>> {
    let run = |lanes, messages| {
        sample(0, async {
            let broker = memory::Broker::new(memory::Config::default());
            handle(broker.publisher("keys"), broker.subscriber("keys", "keys"), lanes, messages).await
        })
    };
    compare("memory", run, rounds)
}

#[cfg(feature = "kafka")]
pub(super) fn on_kafka(kafka: &Kafka, rounds: usize) -> io::Result<Vec<Row>> {
    let run = |lanes, messages| {
        let topic = kafka.topic(1)?;
        let (publisher, subscriber) = kafka.open(&topic, "keys")?;
        Sample::of(|| kafka.block_on(handle(publisher, subscriber, lanes, messages)))
    };
    compare("Kafka, one partition", run, rounds)
}

fn compare(on: &str, run: impl Fn(usize, usize) -> io::Result<Sample>, rounds: usize) -> io::Result<Vec<Row>> {
    Comparison::new(format!("B7 on {on}: 10 ms handlers, 1000 keys"))
        .arm("one at a time", || run(1, FEW))
        .arm("64 lanes, order per key", || run(LANES, MANY))
        .run(rounds)
}

/// Has all messages handled; fails when a key's order was not kept.
async fn handle(publisher: Publisher, from: Subscriber, lanes: usize, messages: usize) -> io::Result<usize> {
    let last: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let disorder = Arc::new(Handled::default());
    let handled = Handled::default();
    let count = handled.clone();
    let (seen, wrong) = (Arc::clone(&last), Arc::clone(&disorder));
    let handler = move |Key(key): Key, Text(number): Text| {
        let (seen, wrong, count) = (Arc::clone(&seen), Arc::clone(&wrong), count.clone());
        async move {
            let number: usize = number.parse()?;
            let before = seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key.unwrap_or_default(), number);
            if before.is_some_and(|before| before >= number) {
                wrong.one(usize::MAX);
            }
            tokio::time::sleep(WORK).await;
            count.one(messages);
            Ok::<(), Failure>(())
        }
    };
    let messages_of = |number: usize| Message::new(number.to_string()).with_key(format!("key-{}", number % KEYS));
    let published = publisher.publish_all((0..messages).map(messages_of).collect()).await;
    published.into_iter().collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let router =
        Running::start(from, |from| Router::new().route("keys", from, handler).concurrency(lanes).prefetch(1000));
    handled.all().await;
    router.stop().await?;
    match disorder.count() {
        0 => Ok(messages),
        wrong => Err(io::Error::other(format!("{wrong} messages were handled before earlier ones of their key"))),
    }
}
