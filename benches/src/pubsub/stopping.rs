//! B11: a stop with ten thousand messages in flight. What does whoever comes next see again, or never?

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainspring_pubsub::{Bytes, Failure, Message, Router};
use rdkafka::Message as _;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Running;
use super::kafka::{Kafka, unique};
use crate::rounds::{Comparison, Row, Sample};

const MESSAGES: usize = 20_000;
const IN_FLIGHT: usize = 10_000;
const WORK: Duration = Duration::from_millis(200);
/// When nothing has come for so long, nothing will.
const QUIET: Duration = Duration::from_secs(8);

/// How often each message was handled.
type Seen = Arc<Mutex<HashMap<Vec<u8>, usize>>>;

pub(super) fn run(kafka: &Kafka, rounds: usize) -> io::Result<Vec<Row>> {
    Comparison::new("B11: stop with 10 000 in flight, 200 ms handlers")
        .arm("StreamConsumer, tasks, drop", || stopped(kafka, raw_life))
        .arm("kit", || stopped(kafka, kit_life))
        // Each takes a while, and counts rather than times.
        .run(rounds.min(2))
}

/// One life that is stopped in the middle, one of the kit's that does the rest. The time is that of the stop.
fn stopped(kafka: &Kafka, life: impl Fn(&Kafka, &str, &str, &Seen) -> io::Result<Duration>) -> io::Result<Sample> {
    let (topic, group, seen) = (kafka.topic(4)?, unique("group"), Seen::default());
    let publisher = kafka.publisher(&topic, IN_FLIGHT)?;
    let messages = (0..MESSAGES).map(|number| Message::new(number.to_string()).with_key(number.to_string()));
    let published = kafka.block_on(publisher.publish_all(messages.collect()));
    published.into_iter().collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let mut sample = Sample::of(|| Ok(0))?;
    let took = life(kafka, &topic, &group, &seen)?.as_millis();
    let before: usize = lock(&seen).values().sum();
    rest(kafka, &topic, &group, &seen)?;
    let seen = lock(&seen);
    let (lost, twice) = (MESSAGES - seen.len(), seen.values().filter(|times| **times > 1).count());
    sample.note = format!("stopped in {took} ms after {before} of {MESSAGES}; {lost} lost, {twice} twice");
    Ok(sample)
}

/// The raw client as it is mostly used: a task for each message, its offset stored when that is done.
fn raw_life(kafka: &Kafka, topic: &str, group: &str, seen: &Seen) -> io::Result<Duration> {
    let consumer: Arc<StreamConsumer> = Arc::new(kafka.consumer_of(group)?);
    consumer.subscribe(&[topic]).map_err(io::Error::other)?;
    kafka.block_on(async {
        let mut tasks = JoinSet::new();
        while tasks.len() < IN_FLIGHT {
            let message = consumer.recv().await.map_err(io::Error::other)?.detach();
            let (seen, consumer) = (Arc::clone(seen), Arc::clone(&consumer));
            tasks.spawn(async move {
                sleep(WORK).await;
                handled(&seen, message.payload().unwrap_or_default());
                consumer.store_offset(message.topic(), message.partition(), message.offset())
            });
            while tasks.try_join_next().is_some() {}
        }
        let began = Instant::now();
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        let _ = consumer.commit_consumer_state(CommitMode::Sync);
        drop(consumer);
        Ok(began.elapsed())
    })
}

fn kit_life(kafka: &Kafka, topic: &str, group: &str, seen: &Seen) -> io::Result<Duration> {
    let from = kafka.subscriber(topic, group)?;
    let handling = Arc::clone(seen);
    let begun = Arc::new(tokio::sync::Semaphore::new(0));
    let counter = Arc::clone(&begun);
    let handler = move |body: Bytes| {
        counter.add_permits(1);
        let seen = Arc::clone(&handling);
        async move {
            sleep(WORK).await;
            handled(&seen, &body);
            Ok::<(), Failure>(())
        }
    };
    kafka.block_on(async {
        let running = Running::start(from, |from| Router::new().route("bench", from, handler).concurrency(IN_FLIGHT));
        let all = begun.acquire_many(u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX));
        drop(all.await.map_err(io::Error::other)?);
        let began = Instant::now();
        running.stop().await?;
        Ok(began.elapsed())
    })
}

/// Handles what is left.
fn rest(kafka: &Kafka, topic: &str, group: &str, seen: &Seen) -> io::Result<()> {
    let mut from = kafka.subscriber(topic, group)?;
    kafka.block_on(async {
        while let Ok(delivery) = timeout(QUIET, from.next()).await {
            let Some(delivery) = delivery.map_err(io::Error::other)? else { break };
            handled(seen, &delivery.message().body);
            drop(delivery.ack());
        }
        from.close(Instant::now() + QUIET).await.map_err(io::Error::other)
    })
}

fn handled(seen: &Seen, body: &[u8]) {
    *lock(seen).entry(body.to_vec()).or_default() += 1;
}

fn lock(seen: &Seen) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, usize>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
