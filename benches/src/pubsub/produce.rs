//! B4 and B5: produce, with every receipt awaited, and over capacity.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::iter;
use mainspring_pubsub::{MessageId, Publisher};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Rows;
use super::kafka::{Kafka, WINDOW, body, publish_all};
use crate::rounds::{Comparison, Row, Sample};

const PRODUCED: usize = 200_000;
/// Over capacity: so many tasks publish so many messages each through a queue of this length.
const TASKS: usize = 2000;
const EACH: usize = 20;
const QUEUE: usize = 1000;

/// B4.
pub(super) fn run(kafka: &Kafka, rounds: usize) -> io::Result<Rows> {
    let mut rows = Rows::new();
    for (name, bytes, messages) in [("B4 16 B", 16, PRODUCED), ("B4 1 KiB", 1024, PRODUCED / 4)] {
        let topic = kafka.topic(4)?;
        let publisher = kafka.publisher(&topic, WINDOW)?;
        let (base, future): (BaseProducer, FutureProducer) = (kafka.producer(WINDOW)?, kafka.producer(WINDOW)?);
        let comparison = Comparison::new(format!("{name}: produce, receipts awaited"))
            .arm("FutureProducer", || {
                Sample::of(|| kafka.block_on(future_producer(&future, &topic, bytes, messages, false)))
            })
            .arm("FutureProducer, the kit's headers", || {
                Sample::of(|| kafka.block_on(future_producer(&future, &topic, bytes, messages, true)))
            })
            .arm("BaseProducer, answers counted", || Sample::of(|| base_producer(&base, &topic, bytes, messages)))
            .arm("kit, publish", || Sample::of(|| kafka.block_on(publish(&publisher, bytes, messages))))
            .arm("kit, publish_all", || {
                Sample::of(|| kafka.block_on(publish_all(&publisher, messages, || body(bytes))))
            });
        rows.push((name, comparison.run(rounds)?));
    }
    Ok(rows)
}

/// B5: many tasks, a short queue.
pub(super) fn over_capacity(kafka: &Kafka, rounds: usize) -> io::Result<Vec<Row>> {
    let topic = kafka.topic(4)?;
    let producer: FutureProducer = kafka.producer(QUEUE)?;
    let publisher = kafka.publisher(&topic, QUEUE)?;
    let latencies: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let measured = |work: &dyn Fn() -> io::Result<usize>| {
        let mut sample = Sample::of(work)?;
        let mut latencies = std::mem::take(&mut *latencies.lock().unwrap_or_else(PoisonError::into_inner));
        latencies.sort_unstable();
        sample.p99 = latencies.get(latencies.len() * 99 / 100).copied();
        Ok(sample)
    };
    let raw = || {
        let (producer, topic) = (producer.clone(), Arc::<str>::from(topic.as_str()));
        kafka.block_on(many_tasks(&latencies, move || {
            let (producer, topic) = (producer.clone(), Arc::clone(&topic));
            async move {
                let record = FutureRecord::<(), [u8]>::to(&topic).payload(&[b'x'; 16]);
                producer
                    .send(record, Duration::from_secs(60))
                    .await
                    .map(drop)
                    .map_err(|(error, _)| io::Error::other(error))
            }
        }))
    };
    let kit = || {
        let publisher = publisher.clone();
        kafka.block_on(many_tasks(&latencies, move || {
            let publisher = publisher.clone();
            async move { publisher.publish(body(16)).await.map(drop).map_err(io::Error::other) }
        }))
    };
    Comparison::new("B5: 2000 tasks publish 20 each through a queue of 1000")
        .arm("FutureProducer", || measured(&raw))
        .arm("kit", || measured(&kit))
        .run(rounds)
}

/// `like_ours` has each message bear what the kit's do: an id of its own as a header, and when it was made.
async fn future_producer(
    producer: &FutureProducer,
    topic: &str,
    bytes: usize,
    messages: usize,
    like_ours: bool,
) -> io::Result<usize> {
    let payload = body(bytes).body;
    let sent = iter(0..messages).map(|_| {
        let mut record = FutureRecord::<(), [u8]>::to(topic).payload(&payload);
        if like_ours {
            let (id, now) = (MessageId::new().to_string(), SystemTime::now().duration_since(UNIX_EPOCH));
            record = record.timestamp(now.map_or(0, |now| now.as_millis() as i64));
            let header = Header { key: "mainspring-id", value: Some(&id) };
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        producer.send(record, Duration::from_secs(60))
    });
    let mut answers = sent.buffer_unordered(WINDOW - 1000);
    while let Some(answer) = answers.next().await {
        answer.map_err(|(error, _)| io::Error::other(error))?;
    }
    Ok(messages)
}

fn base_producer(producer: &BaseProducer, topic: &str, bytes: usize, messages: usize) -> io::Result<usize> {
    let payload = body(bytes).body;
    for _ in 0..messages {
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(Code::QueueFull) {
                return Err(io::Error::other(error));
            }
            producer.poll(Duration::from_millis(1));
            record = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).map_err(io::Error::other)?;
    Ok(messages)
}

async fn publish(publisher: &Publisher, bytes: usize, messages: usize) -> io::Result<usize> {
    let mut answers = iter(0..messages).map(|_| publisher.publish(body(bytes))).buffer_unordered(WINDOW - 1000);
    while let Some(answer) = answers.next().await {
        answer.map_err(io::Error::other)?;
    }
    Ok(messages)
}

/// Has many tasks publish, and notes how long each message took.
async fn many_tasks<F>(
    latencies: &Mutex<Vec<Duration>>,
    publish: impl Fn() -> F + Clone + Send + 'static,
) -> io::Result<usize>
where
    F: Future<Output = io::Result<()>> + Send,
{
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let publish = publish.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(EACH);
            for _ in 0..EACH {
                let began = Instant::now();
                publish().await?;
                latencies.push(began.elapsed());
            }
            io::Result::Ok(latencies)
        });
    }
    while let Some(done) = tasks.join_next().await {
        latencies.lock().unwrap_or_else(PoisonError::into_inner).extend(done??);
    }
    Ok(TASKS * EACH)
}
