//! The kit's own layers, around handlers that a router calls.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{assert_empty, log, next, orders, start, text};
use mainspring_daemon::BoxError;
use mainspring_pubsub::layers::{Breaker, CorrelationId, Dedup, Seen, SeenInMemory, Throttle};
use mainspring_pubsub::{Attempt, Backoff, Failure, Message, Policy, Router, State, Text};
use tokio::time::{Instant, sleep};

type Log<T> = State<Arc<common::Log<T>>>;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn note(State(log): Log<String>, Text(text): Text) -> Result<(), Failure> {
    log.note(text);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_throttle_begins_messages_at_its_pace_and_nobody_times_out_meanwhile() {
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let started = Instant::now();
    let router = Router::new()
        .route("ship", inbox, move |State(log): Log<u128>| async move {
            log.note(started.elapsed().as_millis());
            Ok(())
        })
        .with_state(Arc::clone(&log))
        .layer(Throttle::new(2, secs(1)))
        .policy(Policy::default().attempts(1).timeout(secs(1)));
    let router = start(router);
    for _ in 0..7 {
        publisher.publish(Message::new("x")).await.unwrap();
    }
    assert_eq!(log.wait(7).await, [0, 500, 1000, 1500, 2000, 2500, 3000]);
    sleep(secs(3600)).await;
    for _ in 0..2 {
        publisher.publish(Message::new("x")).await.unwrap();
    }
    let late = log.wait(2).await;
    assert_eq!(late[1] - late[0], 500, "a quiet hour was saved up for a burst");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_back_what_a_throttle_holds() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let router =
        Router::new().route("ship", inbox, note).with_state(Arc::clone(&log)).layer(Throttle::new(1, secs(3600)));
    let router = start(router);
    for text in ["a", "b"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    assert_eq!(log.wait(1).await, ["a"]);
    sleep(secs(1)).await;
    let asked = Instant::now();
    router.stop().await;
    assert!(asked.elapsed() < secs(1), "the stop waited for the throttle");
    let mut after = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let delivery = next(&mut after).await;
    assert_eq!((text(&delivery).as_str(), delivery.attempt()), ("b", Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_spares_the_attempts_of_messages_while_everything_fails() {
    let (brokers, publisher, inbox) = orders().await;
    let (log, down) = (log(), Arc::new(AtomicBool::new(true)));
    let outage = Arc::clone(&down);
    let router = Router::new()
        .route("ship", inbox, move |State(log): Log<(String, u32)>, Text(text): Text, Attempt(attempt): Attempt| {
            let is_down = outage.load(Ordering::SeqCst);
            async move {
                log.note((text, attempt));
                if is_down { Err(Failure::retry("the database is down")) } else { Ok(()) }
            }
        })
        .with_state(Arc::clone(&log))
        .layer(Breaker::new(3, secs(15)))
        .policy(Policy::default().attempts(3).backoff(Backoff::fixed(secs(1))))
        .concurrency(1);
    let router = start(router);
    for i in 0..20 {
        publisher.publish(Message::new(i.to_string())).await.unwrap();
    }
    sleep(secs(10)).await;
    assert_eq!(log.rest().len(), 3, "after three failures nothing begins");
    sleep(secs(15)).await;
    assert_eq!(log.rest().len(), 1, "one is tried after each pause");
    down.store(false, Ordering::SeqCst);
    let mut done: Vec<_> = log.wait(20).await.into_iter().map(|(text, _)| text.parse::<u32>().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, (0..20).collect::<Vec<_>>(), "all are handled once the outage is over");
    router.stop().await;
    assert_empty(&mut brokers.subscriber("memory://orders.dead").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_breaker_does_not_mind_messages_that_are_rejected() {
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): Log<String>, Text(text): Text| async move {
            log.note(text);
            Err(Failure::reject("never"))
        })
        .with_state(Arc::clone(&log))
        .layer(Breaker::new(2, secs(3600)));
    let router = start(router);
    for _ in 0..10 {
        publisher.publish(Message::new("x")).await.unwrap();
    }
    let started = Instant::now();
    log.wait(10).await;
    assert!(started.elapsed() < secs(1), "it opened");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_breaker_counts_panics_and_timeouts_and_recovers_from_a_trial_that_hangs() {
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let started = Instant::now();
    let router = Router::new()
        .route("ship", inbox, move |State(log): Log<u64>, Attempt(attempt): Attempt| async move {
            log.note(started.elapsed().as_secs());
            match attempt {
                1 => panic!("on purpose"),
                2 => std::future::pending().await,
                _ => Ok(()),
            }
        })
        .with_state(Arc::clone(&log))
        .layer(Breaker::new(1, secs(9)))
        .policy(Policy::default().timeout(secs(10)).backoff(Backoff::fixed(Duration::ZERO)));
    let router = start(router);
    publisher.publish(Message::new("x")).await.unwrap();
    assert_eq!(log.wait(3).await, [0, 9, 28]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_handled_is_not_handled_again() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): Log<u32>, Attempt(attempt): Attempt| async move {
            log.note(attempt);
            // Long enough for its twin to come meanwhile.
            sleep(secs(1)).await;
            if attempt == 1 { Err(Failure::retry("busy")) } else { Ok(()) }
        })
        .with_state(Arc::clone(&log))
        .layer(Dedup::default())
        .policy(Policy::default().backoff(Backoff::fixed(secs(5))));
    let router = start(router);
    let message = Message::new("x");
    for _ in 0..2 {
        publisher.publish(message.clone()).await.unwrap();
    }
    // Both fail once, as a failure is not remembered; then the one succeeds, and the other is skipped.
    assert_eq!(log.wait(3).await, [1, 1, 2]);
    sleep(secs(60)).await;
    assert_eq!(log.rest(), [0; 0]);
    publisher.publish(message).await.unwrap();
    publisher.publish(Message::new("x")).await.unwrap();
    sleep(secs(60)).await;
    assert_eq!(log.rest(), [1, 2], "only what has another id is handled");
    router.stop().await;
    assert_empty(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_messages_are_known_by_can_be_chosen() {
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let by = |request: &mainspring_pubsub::Request| request.message().attributes["order"].clone();
    let router = Router::new().route("ship", inbox, note).with_state(Arc::clone(&log)).layer(Dedup::default().by(by));
    let router = start(router);
    for (text, order) in [("a", "1"), ("again", "1"), ("b", "2")] {
        publisher.publish(Message::new(text).with_key("k").with_attribute("order", order)).await.unwrap();
    }
    assert_eq!(log.wait(2).await, ["a", "b"]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_has_the_message_tried_again_and_does_not_undo_it() {
    #[derive(Debug, Default)]
    struct Flaky(AtomicBool);
    #[async_trait::async_trait]
    impl Seen for Flaky {
        async fn contains(&self, _key: &str) -> Result<bool, BoxError> {
            if self.0.swap(true, Ordering::SeqCst) { Ok(false) } else { Err("no connection".into()) }
        }
        async fn insert(&self, _key: &str) -> Result<(), BoxError> {
            Err("no connection".into())
        }
    }
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): Log<u32>, Attempt(attempt): Attempt| async move {
            log.note(attempt);
            Ok(())
        })
        .with_state(Arc::clone(&log))
        .layer(Dedup::new(Flaky::default()));
    let router = start(router);
    publisher.publish(Message::new("x")).await.unwrap();
    assert_eq!(log.wait(1).await, [2]);
    router.stop().await;
    assert_empty(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded_in_number_and_time() {
    let seen = SeenInMemory::new(2, secs(10));
    for key in ["a", "b", "c"] {
        seen.insert(key).await.unwrap();
    }
    assert_eq!(seen.len(), 2);
    assert!(!seen.contains("a").await.unwrap() && seen.contains("b").await.unwrap());
    sleep(secs(6)).await;
    seen.insert("c").await.unwrap();
    sleep(secs(6)).await;
    assert!(!seen.contains("b").await.unwrap(), "its time is over");
    assert!(seen.contains("c").await.unwrap(), "it was remembered anew");
}

#[tokio::test]
async fn a_correlation_id_follows_a_chain_of_messages() {
    let (brokers, publisher, inbox) = orders().await;
    let bills = brokers.publisher("memory://bills").await.unwrap();
    let billed = brokers.subscriber("memory://bills").await.unwrap();
    let log = log();
    let router = Router::new()
        .route("ship", inbox, move |Text(text): Text| {
            let bills = bills.clone();
            async move {
                tokio::task::yield_now().await;
                let id = CorrelationId::current().expect("an id");
                bills.publish(Message::new(text).with_attribute("correlation-id", id)).await?;
                Ok(())
            }
        })
        .route("bill", billed, |State(log): Log<String>, Text(text): Text| async move {
            log.note(format!("{text} {}", CorrelationId::current().expect("an id")));
            Ok(())
        })
        .with_state(Arc::clone(&log))
        .layer(CorrelationId::new());
    let router = start(router);
    let first = Message::new("first");
    let id = first.id.to_string();
    publisher.publish(first).await.unwrap();
    assert_eq!(log.wait(1).await, [format!("first {id}")], "a chain starts with its first message");
    publisher.publish(Message::new("given").with_attribute("correlation-id", "abc-1")).await.unwrap();
    assert_eq!(log.wait(1).await, ["given abc-1"]);
    let hostile = Message::new("hostile").with_attribute("correlation-id", "a\nb");
    let id = hostile.id.to_string();
    publisher.publish(hostile).await.unwrap();
    assert_eq!(log.wait(1).await, [format!("hostile {id}")], "what could break a log line is no id");
    router.stop().await;
    assert_eq!(CorrelationId::current(), None);
}
