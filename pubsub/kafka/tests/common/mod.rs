//! What the tests have in common: a real broker, and fresh topics on it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

pub mod history;
pub mod mock;
pub mod private;
pub mod secure;
pub mod suite;

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainspring_pubsub::{Brokers, BrokersConfig, Delivery, Message, Publisher, Subscriber};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tokio::time::{Instant, timeout};

/// Long enough for anything that is going to happen, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that answers.
#[derive(Clone)]
pub struct Kafka {
    pub address: String,
    pub brokers: Brokers,
}

impl Kafka {
    /// The broker to test against. Without one the test is skipped, unless it is meant to run: then it fails.
    pub fn up() -> Option<Self> {
        let address = std::env::var("MAINSPRING_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".to_owned());
        if let Err(error) = TcpStream::connect(&address) {
            let required = ["CI", "MAINSPRING_REQUIRE_BROKERS"].iter().any(|name| std::env::var_os(name).is_some());
            assert!(!required, "no Kafka at {address}: {error}; start one with scripts/brokers.sh up");
            println!("SKIPPED: no Kafka at {address} ({error}); start one with scripts/brokers.sh up");
            return None;
        }
        Some(Self::at(&address))
    }

    pub fn at(address: &str) -> Self {
        Self::with(address, &BrokersConfig::default())
    }

    pub fn with(address: &str, config: &BrokersConfig) -> Self {
        let mut config = config.clone();
        config.kafka.brokers = address.split(",").map(str::to_owned).collect();
        let opener = mainspring_kafka::opener(&config);
        Self { address: address.to_owned(), brokers: Brokers::new(&config).unwrap().register("kafka", opener) }
    }

    /// A fresh topic. Groups that read it are called after it: a group is one thing for the whole broker, and tests that
    /// run beside each other would be members of the same.
    pub async fn topic(&self, partitions: i32) -> String {
        let topic = unique("topic");
        self.make(&topic, partitions).await;
        topic
    }

    /// Makes a topic.
    pub async fn make(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    pub async fn publisher(&self, topic: &str) -> Publisher {
        self.brokers.publisher(&format!("kafka://{topic}")).await.unwrap()
    }

    pub async fn subscriber(&self, url: &str) -> Subscriber {
        self.brokers.subscriber(url).await.unwrap()
    }
}

/// A name that nothing has had before.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{what}-{nanos}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The next delivery, which has to come.
pub async fn next(subscriber: &mut Subscriber) -> Delivery {
    let next = timeout(PATIENCE, subscriber.next()).await.expect("a delivery in time");
    next.unwrap().expect("the subscriber is open")
}

/// Nothing more comes, as far as one can wait for that.
pub async fn assert_quiet(subscriber: &mut Subscriber) {
    let received = timeout(Duration::from_millis(1500), subscriber.next()).await;
    assert!(received.is_err(), "unexpected delivery: {received:?}");
}

pub fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().body.to_vec()).unwrap()
}

pub async fn close(mut subscriber: Subscriber) {
    subscriber.close(Instant::now() + PATIENCE).await.unwrap();
}

/// How many bytes of memory this process has.
pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Publishes `count` messages called by their numbers, over `keys` keys.
pub async fn publish(publisher: &Publisher, count: usize, keys: usize) {
    publish_from(publisher, 0, count, keys).await;
}

/// The same, from the number `first` on.
pub async fn publish_from(publisher: &Publisher, first: usize, count: usize, keys: usize) {
    let message = |n: usize| Message::new(n.to_string()).with_key(format!("key-{}", n % keys));
    for result in publisher.publish_all((first..first + count).map(message).collect()).await {
        result.unwrap();
    }
}
