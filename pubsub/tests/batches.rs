//! Handlers of several messages at once, with an outcome for each.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, assert_empty, log, next, orders, start, text};
use mainspring_pubsub::{
    Attempt, Backoff, Batching, Bytes, ErrorKind, Failure, Json, Key, Message, Policy, Router, State, Text,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

type Seen = Arc<common::Log<Vec<String>>>;

fn texts(items: Vec<Text>) -> Vec<String> {
    items.into_iter().map(|Text(text)| text).collect()
}

async fn note(State(log): State<Seen>, items: Vec<Text>) -> Result<(), Failure> {
    log.note(texts(items));
    Ok(())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_batch_begins_when_it_is_full_or_its_time_is_over() {
    let (_brokers, publisher, inbox) = orders().await;
    let log: Seen = log();
    let batching = Batching::up_to(3).linger(seconds(5));
    let router = start(Router::new().route_batch("index", inbox, batching, note).with_state(Arc::clone(&log)));
    let began = Instant::now();
    for i in 0..7 {
        publisher.publish(Message::new(i.to_string())).await.unwrap();
    }
    assert_eq!(log.wait(2).await, [["0", "1", "2"], ["3", "4", "5"]]);
    assert_eq!(began.elapsed(), Duration::ZERO, "a full batch does not wait");
    assert_eq!(log.wait(1).await, [["6"]]);
    assert_eq!(began.elapsed().as_secs(), 5);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_message_has_an_outcome_of_its_own() {
    let (brokers, publisher, inbox) = orders().await;
    let log: Seen = log();
    let handler = |State(log): State<Seen>, items: Vec<(Attempt, Text)>| async move {
        log.note(items.iter().map(|(Attempt(attempt), Text(text))| format!("{text}{attempt}")).collect());
        let outcome = |(Attempt(attempt), Text(text)): &(Attempt, Text)| match (text.as_str(), attempt) {
            ("retry", 1) => Err(Failure::retry("busy").after(seconds(1))),
            ("reject", _) => Err(Failure::reject("never")),
            _ => Ok(()),
        };
        items.iter().map(outcome).collect::<Vec<_>>()
    };
    let mut letters = brokers.subscriber("memory://orders.dead").await.unwrap();
    let router = Router::new().route_batch("index", inbox, Batching::up_to(4).linger(seconds(1)), handler);
    let router = start(router.with_state(Arc::clone(&log)));
    for text in ["a", "retry", "reject", "b"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    assert_eq!(log.wait(2).await, [vec!["a1", "retry1", "reject1", "b1"], vec!["retry2"]]);
    let letter = next(&mut letters).await;
    assert_eq!(
        (text(&letter).as_str(), letter.message().attributes["dead-letter-reason"].as_str()),
        ("reject", "never")
    );
    assert_empty(&mut letters);
    let tally = router.cx.tally("deliveries_settled");
    router.stop().await;
    assert_eq!(tally.get(), 5, "four, and one of them twice");
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_one_message_of_a_key_and_keys_keep_their_order() {
    let (_brokers, publisher, inbox) = orders().await;
    let log: Seen = log();
    let handler = |State(log): State<Seen>, items: Vec<(Key, Text)>| async move {
        let keys: BTreeSet<_> = items.iter().map(|(Key(key), _)| key.clone()).collect();
        assert_eq!(keys.len(), items.len(), "two messages of a key in a batch");
        log.note(
            items.iter().map(|(Key(key), Text(text))| format!("{}{text}", key.as_deref().unwrap_or(""))).collect(),
        );
        Ok::<_, Failure>(())
    };
    let router = Router::new().route_batch("index", inbox, Batching::up_to(10), handler).with_state(Arc::clone(&log));
    let router = start(router);
    for (key, text) in [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3"), ("c", "1"), ("b", "2")] {
        publisher.publish(Message::new(text).with_key(key)).await.unwrap();
    }
    assert_eq!(log.wait(3).await, [vec!["a1", "b1", "c1"], vec!["a2", "b2"], vec!["a3"]]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_does_not_get_into_a_batch() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let handler = |State(log): State<Arc<common::Log<Vec<u32>>>>, items: Vec<Json<u32>>| async move {
        log.note(items.iter().map(|Json(number)| *number).collect());
        Ok::<_, Failure>(())
    };
    let router = Router::new().route_batch("index", inbox, Batching::up_to(2), handler).with_state(Arc::clone(&log));
    let router = start(router);
    for text in ["1", "one", "2"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    assert_eq!(log.wait(1).await, [[1, 2]]);
    assert_eq!(text(&next(&mut brokers.subscriber("memory://orders.dead").await.unwrap()).await), "one");
    router.stop().await;
}

/// What a handler does that has no good answer, and what each message of its batch is told.
#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_as_a_whole_fails_each_of_its_messages() {
    for (way, reason) in [
        ("error", "the index is down"),
        ("panic", "the handler panicked: on purpose"),
        ("short", "the batch has 3 messages and was answered for 1"),
        ("hang", "took "),
    ] {
        let (brokers, publisher, inbox) = orders().await;
        let handler = move |items: Vec<Bytes>| async move {
            match way {
                "error" => Err(Failure::retry("the index is down")),
                "panic" => panic!("on purpose"),
                "short" => Ok(items.iter().take(1).map(|_| Ok(())).collect::<Vec<Result<(), Failure>>>()),
                _ => std::future::pending().await,
            }
        };
        let policy = Policy::default().attempts(1).timeout(seconds(9));
        let batching = Batching::up_to(10).linger(seconds(3));
        let began = Instant::now();
        let router = start(Router::new().route_batch("index", inbox, batching, handler).policy(policy));
        for text in ["a", "b", "c"] {
            publisher.publish(Message::new(text)).await.unwrap();
        }
        let mut letters = brokers.subscriber("memory://orders.dead").await.unwrap();
        let mut dead = BTreeSet::new();
        for _ in 0..3 {
            let letter = next(&mut letters).await;
            dead.insert(text(&letter));
            let said = &letter.message().attributes["dead-letter-reason"];
            assert!(said.contains(reason), "{way}: {said}");
            drop(letter.ack());
        }
        assert_eq!(dead.len(), 3, "{way}");
        // The handler's time begins with the batch.
        assert_eq!(began.elapsed().as_secs(), if way == "hang" { 12 } else { 3 }, "{way}");
        router.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_batches_run_at_once_as_the_concurrency_says() {
    let (_brokers, publisher, inbox) = orders().await;
    let (log, permits): (Seen, _) = (log(), Arc::new(Semaphore::new(0)));
    let gate = Arc::clone(&permits);
    let handler = move |State(log): State<Seen>, items: Vec<Text>| {
        let gate = Arc::clone(&gate);
        async move {
            log.note(texts(items));
            gate.acquire().await?.forget();
            Ok::<_, Failure>(())
        }
    };
    let router = Router::new().route_batch("index", inbox, Batching::up_to(2), handler).concurrency(2);
    let router = start(router.with_state(Arc::clone(&log)));
    for i in 0..6 {
        publisher.publish(Message::new(i.to_string())).await.unwrap();
    }
    assert_eq!(log.wait(2).await, [["0", "1"], ["2", "3"]]);
    sleep(seconds(5)).await;
    assert!(log.rest().is_empty(), "a third batch began");
    permits.add_permits(1);
    assert_eq!(log.wait(1).await, [["4", "5"]]);
    permits.add_permits(2);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_batches_finish_that_have_begun_and_gives_back_what_waits() {
    let (brokers, publisher, inbox) = orders().await;
    let log: Seen = log();
    let handler = |State(log): State<Seen>, items: Vec<Text>| async move {
        sleep(seconds(5)).await;
        log.note(texts(items));
        Ok::<_, Failure>(())
    };
    let batching = Batching::up_to(2).linger(seconds(30));
    let mut router = start(Router::new().route_batch("index", inbox, batching, handler).with_state(Arc::clone(&log)));
    for text in ["a", "b", "c"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    sleep(seconds(1)).await;
    let page =
        router.cx.board().pages().remove(0).render(mainspring_daemon::PageRequest::new("GET", "", "")).await.body;
    assert_eq!(page.matches(" running for 1.0s").count(), 2, "{page}");
    assert_eq!(page.matches(" waits for its batch for 1.0s").count(), 1, "{page}");
    let stopped = Instant::now();
    router.request_stop(PATIENCE);
    router.ended().await.unwrap();
    assert_eq!(stopped.elapsed().as_secs(), 4, "nobody waits for a batch to fill");
    assert_eq!(log.rest(), [["a", "b"]]);
    let mut after = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let delivery = next(&mut after).await;
    assert_eq!((text(&delivery).as_str(), delivery.attempt()), ("c", Some(1)));
    drop(delivery.ack());
    assert_empty(&mut after);
}

#[tokio::test(start_paused = true)]
async fn no_batch_begins_while_its_route_is_paused() {
    let (_brokers, publisher, inbox) = orders().await;
    let log: Seen = log();
    let batching = Batching::up_to(10).linger(seconds(2));
    let router = Router::new().route_batch("index", inbox, batching, note).with_state(Arc::clone(&log));
    let handle = router.handle();
    let router = start(router);
    for text in ["a", "b"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    sleep(seconds(1)).await;
    handle.pause("ship").unwrap_err();
    handle.pause("index").unwrap();
    sleep(seconds(100)).await;
    assert!(log.rest().is_empty(), "a paused route began a batch");
    handle.resume("index").unwrap();
    assert_eq!(log.wait(1).await, [["a", "b"]]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_given_up_half_way_gives_everything_back() {
    let (brokers, publisher, inbox) = orders().await;
    let log: Seen = log();
    let handler = |State(log): State<Seen>, items: Vec<Text>| async move {
        log.note(texts(items));
        std::future::pending::<Result<(), Failure>>().await
    };
    let batching = Batching::up_to(2);
    let mut router = start(Router::new().route_batch("index", inbox, batching, handler).with_state(Arc::clone(&log)));
    for text in ["a", "b"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    log.wait(1).await;
    router.request_stop(seconds(1));
    router.ended().await.unwrap();
    let mut after = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let held = [next(&mut after).await, next(&mut after).await];
    assert_eq!(held.iter().map(|delivery| (text(delivery), delivery.attempt())).collect::<BTreeSet<_>>(), {
        BTreeSet::from([("a".to_owned(), Some(1)), ("b".to_owned(), Some(1))])
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_every_message_is_handled_and_nothing_twice() {
    let (_brokers, publisher, inbox) = orders().await;
    let log: Seen = log();
    let handler = |State(log): State<Seen>, items: Vec<(Attempt, Text)>| async move {
        tokio::task::yield_now().await;
        let outcome = |(Attempt(attempt), Text(text)): &(Attempt, Text)| match *attempt {
            1 if text.ends_with('7') => Err(Failure::retry("once more")),
            _ => Ok(text.clone()),
        };
        let outcomes: Vec<_> = items.iter().map(outcome).collect();
        log.note(outcomes.iter().flatten().cloned().collect());
        outcomes.into_iter().map(|outcome| outcome.map(drop)).collect::<Vec<_>>()
    };
    let policy = Policy::default().backoff(Backoff::fixed(Duration::from_millis(1)));
    let batching = Batching::up_to(16).linger(Duration::from_millis(2));
    let router = Router::new().route_batch("index", inbox, batching, handler).concurrency(4).policy(policy);
    let router = start(router.with_state(Arc::clone(&log)));
    let messages = (0..5000).map(|i| Message::new(i.to_string()).with_key((i % 50).to_string())).collect();
    publisher.publish_all(messages).await.into_iter().for_each(|result| drop(result.unwrap()));
    let mut done: Vec<u32> = Vec::new();
    while done.len() < 5000 {
        done.extend(log.wait(1).await.concat().iter().map(|text| text.parse::<u32>().unwrap()));
    }
    for key in 0..50 {
        let of_key: Vec<_> = done.iter().copied().filter(|n| n % 50 == key).collect();
        assert_eq!(of_key, (0..100).map(|i| i * 50 + key).collect::<Vec<_>>(), "key {key}");
    }
    router.stop().await;
    assert!(log.rest().concat().is_empty());
}

#[tokio::test]
async fn batches_that_cannot_work_are_refused() {
    for (batching, what) in [
        (Batching::up_to(0), "a batch would never have a message"),
        (Batching::up_to(1).linger(seconds(61)), "would wait 61s for its batch"),
        (Batching::up_to(10_000), "16 batches of 10000 messages are more than 100000 at once"),
    ] {
        let (_brokers, _publisher, inbox) = orders().await;
        let router = Router::new().route_batch("index", inbox, batching, |_: Vec<Text>| async { Ok::<_, Failure>(()) });
        let error = start(router).ended().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let said = std::error::Error::source(&error).unwrap().to_string();
        assert!(said.contains(what), "{said}");
    }
}
