//! B6: consume what is there, at least once.

use std::io;
use std::time::Duration;

use mainspring_pubsub::layers::CorrelationId;
use mainspring_pubsub::{Router, Subscriber};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::Headers;
use tokio::time::Instant;

use super::kafka::{Kafka, WINDOW, body, publish_all, unique};
use super::{Handled, Running};
use crate::rounds::{Comparison, Row, Sample};

const CONSUMED: usize = 300_000;

pub(super) fn run(kafka: &Kafka, rounds: usize) -> io::Result<Vec<Row>> {
    let topic = kafka.topic(4)?;
    let publisher = kafka.publisher(&topic, WINDOW)?;
    kafka.block_on(publish_all(&publisher, CONSUMED, || body(16)))?;
    // Joining a group takes time that is no message's: the first message is waited for before the clock starts.
    let raw = |with_headers: bool| {
        let consumer: StreamConsumer = kafka.consumer()?;
        consumer.subscribe(&[&topic]).map_err(io::Error::other)?;
        kafka.block_on(store(&consumer, with_headers))?;
        Sample::of(|| {
            kafka.block_on(async {
                for _ in 1..CONSUMED {
                    store(&consumer, with_headers).await?;
                }
                Ok(CONSUMED)
            })
        })
    };
    let base = || {
        let consumer: BaseConsumer = kafka.consumer()?;
        consumer.subscribe(&[&topic]).map_err(io::Error::other)?;
        let next = || loop {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.map_err(io::Error::other)?;
                std::hint::black_box(message.payload().map(<[u8]>::to_vec));
                return consumer.store_offset_from_message(&message).map_err(io::Error::other);
            }
        };
        next()?;
        Sample::of(|| (1..CONSUMED).try_for_each(|_| next()).map(|()| CONSUMED))
    };
    let subscriber = || {
        let mut from = kafka.subscriber(&topic, &unique("group"))?;
        let next = async |from: &mut Subscriber| {
            let delivery = from.next().await.map_err(io::Error::other)?;
            drop(delivery.ok_or(io::ErrorKind::UnexpectedEof)?.ack());
            io::Result::Ok(())
        };
        kafka.block_on(next(&mut from))?;
        let sample = Sample::of(|| {
            kafka.block_on(async {
                for _ in 1..CONSUMED {
                    next(&mut from).await?;
                }
                Ok(CONSUMED)
            })
        });
        kafka.block_on(from.close(Instant::now() + Duration::from_secs(5))).map_err(io::Error::other)?;
        sample
    };
    let router = |with: fn(Router) -> Router| {
        let mut from = kafka.subscriber(&topic, &unique("group"))?;
        drop(kafka.block_on(from.next()).map_err(io::Error::other)?.map(mainspring_pubsub::Delivery::ack));
        let handled = Handled::default();
        Sample::of(|| {
            kafka.block_on(async {
                let count = handled.clone();
                let running = Running::start(from, |from| {
                    with(Router::new().route("bench", from, count.handler(CONSUMED - 1)).concurrency(64))
                });
                handled.all().await;
                running.stop().await.map(|()| CONSUMED)
            })
        })
    };
    Comparison::new("B6: consume 16 B, offsets stored per message")
        .arm("StreamConsumer", || raw(false))
        .arm("StreamConsumer, headers read", || raw(true))
        .arm("BaseConsumer", base)
        .arm("kit, subscriber", subscriber)
        .arm("kit, router", || router(|router| router))
        .arm("kit, router with a layer", || router(|router| router.layer(CorrelationId::new())))
        .run(rounds)
}

/// Receives a message and stores its offset. The kit hands out bodies that may be kept, so this does, too; its messages have
/// an id, which is a header.
async fn store(consumer: &StreamConsumer, with_headers: bool) -> io::Result<()> {
    let message = consumer.recv().await.map_err(io::Error::other)?;
    std::hint::black_box(message.payload().map(<[u8]>::to_vec));
    if with_headers {
        let id = message.headers().and_then(|headers| Some(headers.try_get(0)?.value?.to_vec()));
        std::hint::black_box(id);
    }
    consumer.store_offset_from_message(&message).map_err(io::Error::other)
}
