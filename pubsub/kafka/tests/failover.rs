//! Three brokers, of which one goes, and then all.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::history::History;
use common::private::Private;
use common::{Kafka, PATIENCE, resident};
use mainspring_pubsub::{BrokersConfig, ErrorKind, Failure, Message, Publisher, Router, Text};
use mainspring_testing::Running;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

/// How long a publish may take, and how much longer an answer may be on its way on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(3);
const SLACK: Duration = Duration::from_secs(2);

/// Publishers who all wait for an answer at once, how long each does, and what each has.
const CROWD: usize = 1_000;
const CROWD_TIMEOUT: Duration = Duration::from_millis(500);
const CROWD_BODY: usize = 8 << 10;

/// How often each of them tries while nobody is there, and how much more memory than the first third of that the rest may
/// take. It would be several times as much if what nobody waits for any more were kept.
const TRIES: usize = 24;
const FLAT: usize = 24 << 20;

/// What is published all the while.
#[derive(Clone, Default)]
struct Stream {
    published: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
}

impl Stream {
    /// Publishes number after number, each until the broker has it; every attempt has an answer within its deadline.
    async fn run(self, publisher: Publisher, least: usize) {
        while !self.enough.load(Ordering::Relaxed) || self.published.load(Ordering::Relaxed) < least {
            let number = self.published.load(Ordering::Relaxed);
            let since = Instant::now();
            let result = publisher.publish(Message::new(number.to_string()).with_key(format!("{}", number % 50))).await;
            assert!(since.elapsed() < TIMEOUT + SLACK, "an answer took {:?}: {result:?}", since.elapsed());
            match result {
                Ok(_) => drop(self.published.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    assert!(error.is_retryable() || error.kind() == ErrorKind::Timeout, "{error:?}");
                    self.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until this many more are published: the stream goes on.
    async fn goes_on(&self, more: usize) {
        let until = self.published.load(Ordering::Relaxed) + more;
        let end = Instant::now() + PATIENCE;
        while self.published.load(Ordering::Relaxed) < until {
            assert!(
                Instant::now() < end,
                "publishing does not go on after {} failures",
                self.failed.load(Ordering::Relaxed)
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A crowd that publishes, each one message after the other, until it has failed often enough. Answers by how much memory
/// has grown once the client holds as much as it ever does: it clears out what is too old every second.
async fn crowd(publisher: &Publisher) -> usize {
    let failed = Arc::new(AtomicUsize::new(0));
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let (publisher, failed) = (publisher.clone(), Arc::clone(&failed));
        crowd.spawn(async move {
            for _ in 0..TRIES {
                let since = Instant::now();
                let error = publisher.publish(Message::new(vec![b'x'; CROWD_BODY])).await.unwrap_err();
                assert!(since.elapsed() < CROWD_TIMEOUT + SLACK, "an answer took {:?}: {error:?}", since.elapsed());
                assert!(error.is_retryable() || error.kind() == ErrorKind::Timeout, "{error:?}");
                failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let settled = async {
        while failed.load(Ordering::Relaxed) < CROWD * TRIES / 3 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, settled).await.expect("each is told");
    let memory = resident();
    while let Some(done) = timeout(PATIENCE, crowd.join_next()).await.expect("each is told") {
        done.unwrap();
    }
    resident().saturating_sub(memory)
}

fn router(history: &History, inbox: mainspring_pubsub::Subscriber) -> Router {
    let history = history.clone();
    let handler = move |Text(text): Text| {
        let history = history.clone();
        async move {
            history.add(text.parse()?);
            Ok::<_, Failure>(())
        }
    };
    Router::new().route("failover", inbox, handler).concurrency(16)
}

/// Waits until readiness is as it should be.
async fn until_ready(running: &Running, ready: bool) {
    let end = Instant::now() + PATIENCE;
    while running.context().board().unready().is_empty() != ready {
        assert!(Instant::now() < end, "ready is not {ready}: {:?}", running.context().board().unready());
        sleep(Duration::from_millis(50)).await;
    }
}

/// Which of the three leads the only partition.
async fn leader(address: &str, topic: &str) -> usize {
    let (address, topic) = (address.to_owned(), topic.to_owned());
    let led = spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &address).create().unwrap();
        let metadata = client.fetch_metadata(Some(&topic), PATIENCE).unwrap();
        metadata.topics()[0].partitions()[0].leader()
    });
    usize::try_from(led.await.unwrap()).unwrap() - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_leaders_go_and_when_all_brokers_are_down() {
    let Some(mut brokers) = spawn_blocking(Private::three).await.unwrap() else { return };
    let addresses = brokers.each_ref().map(|broker| broker.address.clone()).join(",");
    let mut config = BrokersConfig::default();
    config.publish.timeout = TIMEOUT.into();
    let kafka = Kafka::with(&addresses, &config);
    kafka.brokers.create_topic("kafka://orders").await.unwrap();
    config.publish.timeout = CROWD_TIMEOUT.into();
    kafka.brokers.create_topic("kafka://crowd").await.unwrap();
    let crowded = Kafka::with(&addresses, &config).publisher("crowd").await;
    let history = History::default();
    let running = Running::start(router(&history, kafka.subscriber("kafka://orders?group=g").await));
    let stream = Stream::default();
    let mut publishing = JoinSet::new();
    publishing.spawn(stream.clone().run(kafka.publisher("orders").await, 1_000));
    stream.goes_on(200).await;
    until_ready(&running, true).await;

    // The leader dies, and comes back.
    let first = leader(&addresses, "orders").await;
    brokers[first].kill();
    stream.goes_on(200).await;
    history.wait_for(stream.published.load(Ordering::Relaxed)).await;
    brokers[first].restart();
    stream.goes_on(200).await;

    // The next one only hangs: its connections stay open.
    let second = leader(&brokers[first].address, "orders").await;
    brokers[second].freeze();
    stream.goes_on(200).await;
    history.wait_for(stream.published.load(Ordering::Relaxed)).await;
    brokers[second].thaw();
    stream.goes_on(200).await;

    // All are gone for ten seconds.
    let failed = stream.failed.load(Ordering::Relaxed);
    brokers.iter_mut().for_each(Private::kill);
    let down = Instant::now();
    until_ready(&running, false).await;
    let grown = crowd(&crowded).await;
    assert!(grown < FLAT, "{} KiB more than after a third of it", grown >> 10);
    drop(crowded);
    sleep(Duration::from_secs(10).saturating_sub(down.elapsed())).await;
    assert!(stream.failed.load(Ordering::Relaxed) > failed, "publishers are told");
    brokers.iter_mut().for_each(Private::begin);
    stream.goes_on(200).await;
    until_ready(&running, true).await;

    stream.enough.store(true, Ordering::Relaxed);
    timeout(PATIENCE, publishing.join_next()).await.unwrap().unwrap().unwrap();
    history.wait_for(stream.published.load(Ordering::Relaxed)).await;
    let (published, failed) = (stream.published.load(Ordering::Relaxed), stream.failed.load(Ordering::Relaxed));
    println!(
        "{published} published, {failed} attempts failed, {} handled again, {} KiB grown",
        history.duplicates(),
        grown >> 10
    );
    running.stop().await;
}
