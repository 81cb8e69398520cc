//! B4, B5, B6: Kafka's own client and the kit, the same topic and the same settings.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::iter;
use mainspring_config::ByteSize;
use mainspring_pubsub::{Brokers, BrokersConfig, Message, Publisher, Router, Subscriber};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Message as _};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Handled, Rows, Running};
use crate::rounds::{Comparison, Sample};

/// Messages on their way at once, where answers are awaited.
const WINDOW: usize = 10_000;
const PRODUCED: usize = 200_000;
const CONSUMED: usize = 300_000;
/// Over capacity: so many tasks publish so many messages each through a queue of this length.
const TASKS: usize = 2000;
const EACH: usize = 20;
const QUEUE: usize = 1000;

/// A broker that answers.
#[derive(Debug)]
pub struct Kafka {
    address: String,
    runtime: Runtime,
}

impl Kafka {
    /// The broker at `MAINSPRING_KAFKA`, or where `scripts/brokers.sh` starts one.
    ///
    /// # Errors
    /// When none answers there; says so.
    pub fn find() -> io::Result<Self> {
        let address = std::env::var("MAINSPRING_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".to_owned());
        TcpStream::connect(&address).map_err(|error| {
            io::Error::new(error.kind(), format!("no Kafka at {address} ({error}); `make brokers-up` starts one"))
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { address, runtime })
    }

    pub(super) fn run(&self, rounds: usize) -> io::Result<Rows> {
        let mut rows = Rows::new();
        for (name, bytes, messages) in [("B4 16 B", 16, PRODUCED), ("B4 1 KiB", 1024, PRODUCED / 4)] {
            let topic = self.topic(4)?;
            let publisher = self.publisher(&topic, WINDOW)?;
            let (base, future): (BaseProducer, FutureProducer) = (self.producer(WINDOW)?, self.producer(WINDOW)?);
            let comparison = Comparison::new(format!("{name}: produce, receipts awaited"))
                .arm("FutureProducer", || {
                    Sample::of(|| self.block_on(future_producer(&future, &topic, bytes, messages)))
                })
                .arm("BaseProducer, answers counted", || Sample::of(|| base_producer(&base, &topic, bytes, messages)))
                .arm("kit, publish", || Sample::of(|| self.block_on(publish(&publisher, bytes, messages))))
                .arm("kit, publish_all", || Sample::of(|| self.block_on(publish_all(&publisher, bytes, messages))));
            rows.push((name, comparison.run(rounds)?));
        }
        rows.push(("B5", self.over_capacity(rounds)?));
        rows.push(("B6", self.consume(rounds)?));
        Ok(rows)
    }

    /// B5: many tasks, a short queue.
    fn over_capacity(&self, rounds: usize) -> io::Result<Vec<crate::rounds::Row>> {
        let topic = self.topic(4)?;
        let producer: FutureProducer = self.producer(QUEUE)?;
        let publisher = self.publisher(&topic, QUEUE)?;
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
            self.block_on(many_tasks(&latencies, move || {
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
            self.block_on(many_tasks(&latencies, move || {
                let publisher = publisher.clone();
                async move { publisher.publish(body(16)).await.map(drop).map_err(io::Error::other) }
            }))
        };
        Comparison::new("B5: 2000 tasks publish 20 each through a queue of 1000")
            .arm("FutureProducer", || measured(&raw))
            .arm("kit", || measured(&kit))
            .run(rounds)
    }

    /// B6: consume what is there, at least once.
    fn consume(&self, rounds: usize) -> io::Result<Vec<crate::rounds::Row>> {
        let topic = self.topic(4)?;
        let publisher = self.publisher(&topic, WINDOW)?;
        self.block_on(publish_all(&publisher, 16, CONSUMED))?;
        // Joining a group takes time that is no message's: the first message is waited for before the clock starts.
        let raw = || {
            let consumer: StreamConsumer = self.consumer()?;
            consumer.subscribe(&[&topic]).map_err(io::Error::other)?;
            self.block_on(store(&consumer))?;
            Sample::of(|| {
                self.block_on(async {
                    for _ in 1..CONSUMED {
                        store(&consumer).await?;
                    }
                    Ok(CONSUMED)
                })
            })
        };
        let base = || {
            let consumer: BaseConsumer = self.consumer()?;
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
            let mut from = self.subscriber(&topic, &unique("group"))?;
            let next = async |from: &mut Subscriber| {
                let delivery = from.next().await.map_err(io::Error::other)?;
                drop(delivery.ok_or(io::ErrorKind::UnexpectedEof)?.ack());
                io::Result::Ok(())
            };
            self.block_on(next(&mut from))?;
            let sample = Sample::of(|| {
                self.block_on(async {
                    for _ in 1..CONSUMED {
                        next(&mut from).await?;
                    }
                    Ok(CONSUMED)
                })
            });
            self.block_on(from.close(Instant::now() + Duration::from_secs(5))).map_err(io::Error::other)?;
            sample
        };
        let router = || {
            let mut from = self.subscriber(&topic, &unique("group"))?;
            drop(self.block_on(from.next()).map_err(io::Error::other)?.map(mainspring_pubsub::Delivery::ack));
            let handled = Handled::default();
            Sample::of(|| {
                self.block_on(async {
                    let count = handled.clone();
                    let running = Running::start(from, |from| {
                        Router::new().route("bench", from, count.handler(CONSUMED - 1)).concurrency(64)
                    });
                    handled.all().await;
                    running.stop().await.map(|()| CONSUMED)
                })
            })
        };
        Comparison::new("B6: consume 16 B, offsets stored per message")
            .arm("StreamConsumer", raw)
            .arm("BaseConsumer", base)
            .arm("kit, subscriber", subscriber)
            .arm("kit, router", router)
            .run(rounds)
    }

    /// A fresh topic.
    pub(super) fn topic(&self, partitions: i32) -> io::Result<String> {
        let topic = unique("bench");
        let admin: AdminClient<DefaultClientContext> = self.client().create().map_err(io::Error::other)?;
        let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        let made = self.block_on(admin.create_topics([&new], &AdminOptions::new())).map_err(io::Error::other)?;
        made.into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|(topic, error)| io::Error::other(format!("{topic}: {error}")))?;
        Ok(topic)
    }

    /// A publisher to `topic` and a subscriber of `group`.
    pub(super) fn open(&self, topic: &str, group: &str) -> io::Result<(Publisher, Subscriber)> {
        Ok((self.publisher(topic, WINDOW)?, self.subscriber(topic, &format!("{topic}-{group}"))?))
    }

    pub(super) fn publisher(&self, topic: &str, window: usize) -> io::Result<Publisher> {
        let opened = self.block_on(self.brokers(window)?.publisher(&format!("kafka://{topic}")));
        opened.map_err(io::Error::other)
    }

    pub(super) fn subscriber(&self, topic: &str, group: &str) -> io::Result<Subscriber> {
        let url = format!("kafka://{topic}?group={group}");
        self.block_on(self.brokers(WINDOW)?.subscriber(&url)).map_err(io::Error::other)
    }

    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The same, of a group of its own.
    pub(super) fn consumer<C: rdkafka::config::FromClientConfig>(&self) -> io::Result<C> {
        self.consumer_of(&unique("group"))
    }

    /// A consumer with the settings that the kit has.
    pub(super) fn consumer_of<C: rdkafka::config::FromClientConfig>(&self, group: &str) -> io::Result<C> {
        // A `StreamConsumer` spawns a task when it is made.
        let _runtime = self.runtime.enter();
        let mut config = self.client();
        config.set("group.id", group).set("auto.offset.reset", "earliest");
        config.set("enable.auto.offset.store", "false").set("auto.commit.interval.ms", "1000");
        config.create().map_err(io::Error::other)
    }

    fn brokers(&self, window: usize) -> io::Result<Brokers> {
        let mut config = BrokersConfig::default();
        config.kafka.brokers = vec![self.address.clone()];
        config.publish.max_messages = window;
        config.publish.max_bytes = ByteSize::mib(64);
        let opener = mainspring_kafka::opener(&config);
        Ok(Brokers::new(&config).map_err(io::Error::other)?.register("kafka", opener))
    }

    /// A producer with the settings that the kit has.
    fn producer<P: rdkafka::config::FromClientConfig>(&self, queue: usize) -> io::Result<P> {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
        config.set("compression.type", "lz4").set("queue.buffering.max.messages", queue.to_string());
        config.create().map_err(io::Error::other)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }
}

fn body(bytes: usize) -> Message {
    static BODY: [u8; 1024] = [b'x'; 1024];
    Message::new(&BODY[..bytes])
}

async fn future_producer(producer: &FutureProducer, topic: &str, bytes: usize, messages: usize) -> io::Result<usize> {
    let payload = body(bytes).body;
    let sent = iter(0..messages).map(|_| {
        let record = FutureRecord::<(), [u8]>::to(topic).payload(&payload);
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

pub(super) async fn publish_all(publisher: &Publisher, bytes: usize, messages: usize) -> io::Result<usize> {
    for at in (0..messages).step_by(WINDOW) {
        let batch = (at..messages.min(at + WINDOW)).map(|_| body(bytes)).collect();
        let answers = publisher.publish_all(batch).await;
        answers.into_iter().collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    }
    Ok(messages)
}

async fn store(consumer: &StreamConsumer) -> io::Result<()> {
    let message = consumer.recv().await.map_err(io::Error::other)?;
    // The kit hands out bodies that may be kept, so this does, too.
    std::hint::black_box(message.payload().map(<[u8]>::to_vec));
    consumer.store_offset_from_message(&message).map_err(io::Error::other)
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

/// A name that nothing has had before.
pub(super) fn unique(what: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{what}-{nanos}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
