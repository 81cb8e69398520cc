//! Partitions move between members, and nothing is lost, handled twice or out of order.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::history::History;
use common::{Kafka, PATIENCE, close, next, publish, publish_from, text};
use mainspring_pubsub::{ErrorKind, Failure, Message, Router};
use mainspring_testing::Running;
use mainspring_testing::history::{Journal, Rules};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

const KEYS: usize = 200;

/// Members join and leave every 200 ms for 20 s, while messages come.
async fn members_come_and_go(options: &str) {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(12).await;
    let url = format!("kafka://{topic}?group={topic}&{options}");
    let publisher = kafka.publisher(&topic).await;
    let history = History::default();
    let stays = history.member(kafka.subscriber(&url).await);
    let end = Instant::now() + Duration::from_secs(20);
    let (mut visits, mut published) = (0, 0);
    while Instant::now() < end {
        publish_from(&publisher, published, 400, KEYS).await;
        published += 400;
        let second = history.member(kafka.subscriber(&url).await);
        sleep(Duration::from_millis(200)).await;
        let third = history.member(kafka.subscriber(&url).await);
        sleep(Duration::from_millis(200)).await;
        second.stop().await;
        sleep(Duration::from_millis(200)).await;
        third.stop().await;
        visits += 2;
    }
    history.wait_for(published).await;
    stays.stop().await;
    println!("{visits} visits, {published} messages, {} duplicates", history.duplicates());
    assert_eq!(history.duplicates(), 0);
    history.assert_ordered(KEYS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classic_members_come_and_go_without_loss_or_duplicate() {
    members_come_and_go("protocol=classic&session_timeout=6s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_without_loss_or_duplicate() {
    members_come_and_go("protocol=consumer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_takes_over_from_one_that_stops() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(4).await;
    let url = format!("kafka://{topic}?group={topic}");
    let publisher = kafka.publisher(&topic).await;
    publish(&publisher, 4_000, KEYS).await;
    let history = History::default();
    let mut instance = history.member(kafka.subscriber(&url).await);
    for _ in 0..6 {
        let handled = history.distinct();
        history.wait_for(handled + 100).await;
        let next = history.member(kafka.subscriber(&url).await);
        instance.stop().await;
        instance = next;
    }
    history.wait_for(4_000).await;
    instance.stop().await;
    assert_eq!(history.duplicates(), 0);
    history.assert_ordered(KEYS);
}

#[tokio::test]
async fn a_message_that_outlasts_the_drain_is_lost_to_its_old_owner() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    // All partitions move at each change of a classic group.
    let url = format!("kafka://{topic}?group={topic}&protocol=classic&session_timeout=6s&drain=200ms");
    kafka.publisher(&topic).await.publish(Message::new("slow")).await.unwrap();
    let mut first = kafka.subscriber(&url).await;
    let slow = next(&mut first).await;
    let mut second = kafka.subscriber(&url).await;
    // Whoever of the two has the partition now.
    let again = tokio::select! {
        again = next(&mut first) => again,
        again = next(&mut second) => again,
    };
    assert_eq!(text(&again), "slow");
    assert_eq!(slow.ack().await.unwrap_err().kind(), ErrorKind::Lost);
    again.ack().await.unwrap();
    close(first).await;
    close(second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_are_closed_while_they_join_leave_nobody_behind() {
    let Some(kafka) = Kafka::up() else { return };
    for _ in 0..5 {
        let topic = kafka.topic(4).await;
        let url = format!("kafka://{topic}?group={topic}&protocol=consumer");
        let mut members = JoinSet::new();
        for _ in 0..10 {
            let (kafka, url) = (kafka.clone(), url.clone());
            members.spawn(async move { close(kafka.subscriber(&url).await).await });
        }
        members.join_all().await;
        publish(&kafka.publisher(&topic).await, 1, 1).await;
        let mut subscriber = kafka.subscriber(&url).await;
        // For a member that has left without a word the broker waits 15 s.
        let next = timeout(Duration::from_secs(12), subscriber.next()).await;
        next.expect("the group is whole at once").unwrap().unwrap().ack().await.unwrap();
        close(subscriber).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_committed_before_it_is_done() {
    const PARTITIONS: i32 = 6;
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(PARTITIONS).await;
    let url = format!("kafka://{topic}?group={topic}");
    let (journal, publisher) = (Journal::new(), kafka.publisher(&topic).await);
    let producer = journal.producer("web");
    let commits = Commits::watch(&kafka, &topic, PARTITIONS, &journal);
    let member = async |name: &str| journaled(&journal, journal.watch(kafka.subscriber(&url).await, &topic, name));
    let mut instance = member("0").await;
    for number in 1..=8 {
        let message = |n: usize| Message::new("").with_key(format!("key-{}", n % KEYS));
        for result in producer.publish_all(&publisher, (0..500).map(message).collect()).await {
            result.unwrap();
        }
        let next = member(&number.to_string()).await;
        sleep(Duration::from_millis(500)).await;
        std::mem::replace(&mut instance, next).stop().await;
    }
    let published = producer.count();
    let end = Instant::now() + PATIENCE;
    while !journal.check(&Rules::default()).is_clean() {
        assert!(Instant::now() < end, "{}", journal.check(&Rules::default()));
        sleep(Duration::from_millis(100)).await;
    }
    instance.stop().await;
    let (seen, committed) = commits.stop().await;
    let verdict = journal.check(&Rules::default());
    println!("{verdict}; {seen} commits were seen");
    verdict.assert_clean();
    assert_eq!(committed, published, "what is done is committed in the end");
}

/// A router that takes its time, for some messages much of it, and writes down when it is done with one.
fn journaled(journal: &Journal, inbox: mainspring_pubsub::Subscriber) -> Running {
    let journal = journal.clone();
    let handler = move |message: Message| {
        let handling = journal.handling(&message);
        async move {
            let slow = u64::from(message.key.is_some_and(|key| key.ends_with('7')));
            sleep(Duration::from_millis(5 + slow * 200)).await;
            handling.ended(true);
            Ok::<_, Failure>(())
        }
    };
    Running::start(Router::new().route("journaled", inbox, handler).concurrency(32))
}

/// Somebody who asks the broker all the while what a group has committed, and writes that down.
struct Commits {
    enough: Arc<AtomicBool>,
    watching: JoinHandle<(usize, u64)>,
}

impl Commits {
    fn watch(kafka: &Kafka, topic: &str, partitions: i32, journal: &Journal) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (stop, journal, topic) = (Arc::clone(&enough), journal.clone(), topic.to_owned());
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka.address).set("group.id", &topic);
        let watching = spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().unwrap();
            let (mut known, mut seen) = (BTreeMap::new(), 0);
            loop {
                // Asked once more when it is all over.
                let last = stop.load(Ordering::Relaxed);
                let mut list = TopicPartitionList::new();
                list.add_partition_range(&topic, 0, partitions - 1);
                for element in consumer.committed_offsets(list, PATIENCE).unwrap().elements() {
                    let Offset::Offset(next) = element.offset() else { continue };
                    let (partition, next) = (u32::try_from(element.partition()).unwrap(), u64::try_from(next).unwrap());
                    if known.insert(partition, next) != Some(next) {
                        journal.committed(&topic, partition, next);
                        seen += 1;
                    }
                }
                if last {
                    return (seen, known.values().sum());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { enough, watching }
    }

    /// How many commits were seen, and how many messages they stand for.
    async fn stop(self) -> (usize, u64) {
        self.enough.store(true, Ordering::Relaxed);
        self.watching.await.unwrap()
    }
}
