//! The broker inside the process, without a router.

mod common;

use std::time::Duration;

use common::{assert_empty, brokers, next, orders, text};
use mainspring_config::{ByteSize, Duration as Length};
use mainspring_pubsub::memory::{Broker, Config};
use mainspring_pubsub::{Brokers, BrokersConfig, ErrorKind, Message};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn a_message_comes_out_byte_for_byte_as_it_went_in() {
    let (_brokers, publisher, mut inbox) = orders().await;
    let weird = "/ \\ ../ \" ' \t\n1☺☺☺\u{0}\u{7f}";
    let sent = Message::new(&b"\xff\xfe\x00 body"[..]).with_key(weird).with_attribute(weird, weird);
    let receipt = publisher.publish(sent.clone()).await.unwrap();
    let delivery = next(&mut inbox).await;
    assert_eq!(*delivery.message(), sent);
    assert_eq!((&receipt.id, receipt.position), (&sent.id, delivery.position()));
    assert_eq!((delivery.attempt(), delivery.lease()), (Some(1), None));
    assert_eq!(delivery.message().body.as_ptr(), sent.body.as_ptr(), "bodies are shared, not copied");
    delivery.ack().await.unwrap();
    assert_empty(&mut inbox);
}

#[tokio::test]
async fn nacked_and_dropped_messages_come_again_at_their_old_place() {
    let (_brokers, publisher, mut inbox) = orders().await;
    for body in ["a", "b", "c"] {
        publisher.publish(Message::new(body)).await.unwrap();
    }
    next(&mut inbox).await.nack().await.unwrap();
    let again = next(&mut inbox).await;
    assert_eq!((text(&again), again.attempt()), ("a".to_owned(), Some(2)));
    drop(again);
    let again = next(&mut inbox).await;
    assert_eq!((text(&again), again.attempt()), ("a".to_owned(), Some(3)));
    again.release().await.unwrap();
    let again = next(&mut inbox).await;
    assert_eq!((text(&again), again.attempt()), ("a".to_owned(), Some(3)), "a release uses up no attempt");
    again.ack().await.unwrap();
    assert_eq!(text(&next(&mut inbox).await), "b");
}

#[tokio::test(start_paused = true)]
async fn a_nack_with_a_delay_comes_again_exactly_then() {
    let (_brokers, publisher, mut inbox) = orders().await;
    publisher.publish(Message::new("a")).await.unwrap();
    let started = Instant::now();
    next(&mut inbox).await.nack_after(Duration::from_secs(9)).await.unwrap();
    publisher.publish(Message::new("b")).await.unwrap();
    let other = next(&mut inbox).await;
    assert_eq!(text(&other), "b");
    other.ack().await.unwrap();
    assert_eq!(text(&next(&mut inbox).await), "a");
    assert_eq!(started.elapsed(), Duration::from_secs(9));
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_for_its_earlier_message_and_no_other_key_does() {
    let (_brokers, publisher, mut inbox) = orders().await;
    for (key, body) in [("k", "k1"), ("k", "k2"), ("l", "l1")] {
        publisher.publish(Message::new(body).with_key(key)).await.unwrap();
    }
    let first = next(&mut inbox).await;
    assert_eq!(text(&first), "k1");
    assert_eq!(text(&next(&mut inbox).await), "l1");
    first.nack_after(Duration::from_secs(5)).await.unwrap();
    let again = next(&mut inbox).await;
    assert_eq!(text(&again), "l1", "dropped above");
    again.ack().await.unwrap();
    assert!(timeout(Duration::from_secs(4), inbox.next()).await.is_err(), "k2 overtook k1");
    let again = next(&mut inbox).await;
    assert_eq!(text(&again), "k1");
    again.ack().await.unwrap();
    assert_eq!(text(&next(&mut inbox).await), "k2");
}

#[tokio::test(start_paused = true)]
async fn each_group_sees_all_and_its_subscribers_share() {
    let brokers = brokers();
    let publisher = brokers.publisher("memory://orders").await.unwrap();
    let mut readers = JoinSet::new();
    for (group, reader) in [("ship", 0), ("ship", 1), ("ship", 2), ("audit", 0)] {
        let mut inbox = brokers.subscriber(&format!("memory://orders?group={group}")).await.unwrap();
        readers.spawn(async move {
            let mut seen = Vec::new();
            while let Ok(next) = timeout(Duration::from_millis(500), inbox.next()).await {
                let delivery = next.unwrap().unwrap();
                seen.push(text(&delivery).parse::<u32>().unwrap());
                delivery.ack().await.unwrap();
                tokio::task::yield_now().await;
            }
            (group, reader, seen)
        });
    }
    for i in 0..300 {
        publisher.publish(Message::new(i.to_string())).await.unwrap();
    }
    let mut all = std::collections::BTreeMap::<_, Vec<u32>>::new();
    for (group, reader, seen) in readers.join_all().await {
        assert!(!seen.is_empty(), "reader {reader} of {group} got nothing");
        all.entry(group).or_default().extend(seen);
    }
    for (group, mut seen) in all {
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..300), "{group} saw {seen:?}");
    }
}

#[tokio::test]
async fn topics_and_brokers_share_nothing() {
    let (brokers, publisher, mut inbox) = orders().await;
    let mut other_topic = brokers.subscriber("memory://Orders?group=ship").await.unwrap();
    let mut other_broker = common::brokers().subscriber("memory://orders?group=ship").await.unwrap();
    publisher.publish(Message::new("a")).await.unwrap();
    assert_empty(&mut other_topic);
    assert_empty(&mut other_broker);
    assert_eq!(text(&next(&mut inbox).await), "a");
}

#[tokio::test]
async fn a_group_that_comes_late_starts_with_the_newest_messages() {
    let config = Config { retention: 3, ..Config::default() };
    let broker = Broker::new(config);
    let publisher = broker.publisher("orders");
    for i in 0..5 {
        publisher.publish(Message::new(i.to_string())).await.unwrap();
    }
    let mut late = broker.subscriber("orders", "late");
    for expected in ["2", "3", "4"] {
        let delivery = next(&mut late).await;
        assert_eq!(text(&delivery), expected);
        delivery.ack().await.unwrap();
    }
    assert_empty(&mut late);
}

#[tokio::test]
async fn a_group_outlives_its_subscribers() {
    let (brokers, publisher, mut inbox) = orders().await;
    publisher.publish(Message::new("a")).await.unwrap();
    publisher.publish(Message::new("b")).await.unwrap();
    let held = next(&mut inbox).await;
    inbox.close(Instant::now()).await.unwrap();
    inbox.close(Instant::now()).await.unwrap();
    assert!(inbox.next().await.unwrap().is_none());
    held.ack().await.unwrap();
    let mut again = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    assert_eq!(text(&next(&mut again).await), "b");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_is_lost_and_the_message_comes_again() {
    let config = Config { visibility_timeout: Length::from_secs(10), ..Config::default() };
    let broker = Broker::new(config);
    let publisher = broker.publisher("orders");
    let mut inbox = broker.subscriber("orders", "ship");
    publisher.publish(Message::new("a")).await.unwrap();
    let started = Instant::now();
    let first = next(&mut inbox).await;
    assert_eq!(first.lease(), Some(started + Duration::from_secs(10)));
    sleep(Duration::from_secs(6)).await;
    first.extend(Duration::from_secs(10)).await.unwrap();
    let second = next(&mut inbox).await;
    assert_eq!((started.elapsed().as_secs(), second.attempt()), (16, Some(2)));
    assert_eq!(first.extend(Duration::from_secs(1)).await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(first.ack().await.unwrap_err().kind(), ErrorKind::Lost);
    second.ack().await.unwrap();
    assert!(timeout(Duration::from_secs(60), inbox.next()).await.is_err(), "acked once is acked");
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_receive_loses_nothing() {
    let (_brokers, publisher, mut inbox) = orders().await;
    let mut received = Vec::new();
    for i in 0..100_u64 {
        // Cancelled before, while and after a message comes.
        let publish = async {
            sleep(Duration::from_millis(i % 3)).await;
            publisher.publish(Message::new(i.to_string())).await.unwrap();
        };
        let receive = timeout(Duration::from_millis(1), inbox.next());
        let (_, next) = tokio::join!(publish, receive);
        if let Ok(next) = next {
            let delivery = next.unwrap().unwrap();
            received.push(text(&delivery));
            delivery.ack().await.unwrap();
        }
    }
    while let Ok(next) = timeout(Duration::from_millis(10), inbox.next()).await {
        let delivery = next.unwrap().unwrap();
        received.push(text(&delivery));
        delivery.ack().await.unwrap();
    }
    assert!(
        received.iter().map(String::as_str).eq((0..100).map(|i| i.to_string()).collect::<Vec<_>>()),
        "{received:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn publishing_waits_for_room_and_says_who_has_none() {
    let mut config = BrokersConfig::default();
    config.memory.capacity = 2;
    config.publish.timeout = Length::from_secs(3);
    let brokers = Brokers::new(&config).unwrap();
    let publisher = brokers.publisher("memory://orders").await.unwrap();
    let mut inbox = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let mut idle = brokers.subscriber("memory://orders?group=audit").await.unwrap();
    publisher.publish(Message::new("a")).await.unwrap();
    next(&mut idle).await.ack().await.unwrap();
    publisher.publish(Message::new("b")).await.unwrap();
    next(&mut idle).await.ack().await.unwrap();

    let started = Instant::now();
    let error = publisher.publish(Message::new("c")).await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::Throttled, 3));
    let said = error.to_string();
    assert!(said.contains("`orders` is full: its group `ship` holds 2") && said.contains("nothing was"), "{said}");

    let (published, ()) = tokio::join!(publisher.publish(Message::new("d")), async {
        sleep(Duration::from_secs(1)).await;
        next(&mut inbox).await.ack().await.unwrap();
    });
    published.unwrap();
    assert_eq!(started.elapsed().as_secs(), 4, "woken by the ack");
    for expected in ["b", "d"] {
        let delivery = next(&mut inbox).await;
        assert_eq!(text(&delivery), expected);
        delivery.ack().await.unwrap();
    }
    assert_empty(&mut inbox);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_message_stays_while_there_is_no_room_for_dead_letters() {
    let config = Config { capacity: 1, ..Config::default() };
    let broker = Broker::new(config);
    let publisher = broker.publisher("orders");
    let (mut inbox, mut dead) = (broker.subscriber("orders", "ship"), broker.subscriber("orders.dead", "watch"));
    for body in ["a", "b"] {
        publisher.publish(Message::new(body)).await.unwrap();
        if body == "a" {
            next(&mut inbox).await.reject("no").await.unwrap();
        }
    }
    let error = next(&mut inbox).await.reject("no").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    let letter = next(&mut dead).await;
    assert_eq!((text(&letter).as_str(), letter.message().attributes["dead-letter-reason"].as_str()), ("a", "no"));
    letter.ack().await.unwrap();
    next(&mut inbox).await.reject("no").await.unwrap();
    assert_eq!(text(&next(&mut dead).await), "b");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let mut config = BrokersConfig::default();
    config.memory.capacity = 0;
    assert_eq!(Brokers::new(&config).unwrap_err().kind(), ErrorKind::Config);
    let mut config = BrokersConfig::default();
    config.memory.max_message_bytes = ByteSize::mib(65);
    assert_eq!(Brokers::new(&config).unwrap_err().kind(), ErrorKind::Config);
}
