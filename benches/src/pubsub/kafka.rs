//! The broker that comparisons run on, and clients of it with the same settings: Kafka's own and the kit's.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use mainspring_config::ByteSize;
use mainspring_pubsub::{Brokers, BrokersConfig, Message, Publisher, Subscriber};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tokio::runtime::Runtime;

/// Messages on their way at once, where answers are awaited.
pub(super) const WINDOW: usize = 10_000;

/// A broker that answers. The topics that were made on it go with this.
#[derive(Debug)]
pub struct Kafka {
    address: String,
    runtime: Runtime,
    topics: Mutex<Vec<String>>,
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
        Ok(Self { address, runtime, topics: Mutex::default() })
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
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).push(topic.clone());
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

    /// A consumer with the settings that the kit has, of a group of its own.
    pub(super) fn consumer<C: rdkafka::config::FromClientConfig>(&self) -> io::Result<C> {
        self.consumer_of(&unique("group"))
    }

    /// The same, of this group.
    pub(super) fn consumer_of<C: rdkafka::config::FromClientConfig>(&self, group: &str) -> io::Result<C> {
        // A `StreamConsumer` spawns a task when it is made.
        let _runtime = self.runtime.enter();
        let mut config = self.client();
        config.set("group.id", group).set("auto.offset.reset", "earliest");
        config.set("enable.auto.offset.store", "false").set("auto.commit.interval.ms", "1000");
        config.create().map_err(io::Error::other)
    }

    pub(super) fn brokers(&self, window: usize) -> io::Result<Brokers> {
        let mut config = BrokersConfig::default();
        config.kafka.brokers = vec![self.address.clone()];
        config.publish.max_messages = window;
        config.publish.max_bytes = ByteSize::mib(64);
        let opener = mainspring_kafka::opener(&config);
        Ok(Brokers::new(&config).map_err(io::Error::other)?.register("kafka", opener))
    }

    /// A producer with the settings that the kit has.
    pub(super) fn producer<P: rdkafka::config::FromClientConfig>(&self, queue: usize) -> io::Result<P> {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
        config.set("compression.type", "lz4").set("partitioner", "murmur2_random");
        config.set("queue.buffering.max.messages", queue.to_string());
        config.create().map_err(io::Error::other)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }
}

impl Drop for Kafka {
    /// A gigabyte is no thing to leave behind.
    fn drop(&mut self) {
        let topics = std::mem::take(self.topics.get_mut().unwrap_or_else(PoisonError::into_inner));
        if topics.is_empty() {
            return;
        }
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        if let Ok(admin) = self.client().create::<AdminClient<DefaultClientContext>>()
            && let Err(error) = self.block_on(admin.delete_topics(&topics, &AdminOptions::new()))
        {
            eprintln!("topics of the comparisons are left on {}: {error}", self.address);
        }
    }
}

/// A message of so many bytes, all of them the same.
pub(super) fn body(bytes: usize) -> Message {
    static BODY: [u8; 1024] = [b'x'; 1024];
    Message::new(&BODY[..bytes])
}

/// Publishes a window after the other.
pub(super) async fn publish_all(
    publisher: &Publisher,
    messages: usize,
    message: impl Fn() -> Message,
) -> io::Result<usize> {
    for at in (0..messages).step_by(WINDOW) {
        let batch = (at..messages.min(at + WINDOW)).map(|_| message()).collect();
        let answers = publisher.publish_all(batch).await;
        answers.into_iter().collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    }
    Ok(messages)
}

/// A name that nothing has had before.
pub(super) fn unique(what: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{what}-{nanos}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
