//! Partitions move between members, and nothing is lost, handled twice or out of order.

mod common;

use std::time::Duration;

use common::history::History;
use common::{Kafka, close, next, publish, publish_from, text};
use mainspring_pubsub::{ErrorKind, Message};
use tokio::task::JoinSet;
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
