//! Order per key, under concurrency and random failures: on a broker that keeps the order and delays retries itself, and
//! on one that does neither.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::partition::partition;
use common::{log, orders, start};
use mainspring_pubsub::{Attempt, Backoff, Failure, Message, Policy, Router, State, Text};
use proptest::prelude::*;
use proptest::test_runner::Config;
use tokio::runtime::Builder;
use tokio::time::sleep;

/// How a message fails before it is handled.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Error,
    Panic,
    Hang,
}

#[derive(Clone, Debug)]
struct Plan {
    key: Option<u8>,
    troubles: Vec<Trouble>,
    work: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Begun,
    Done,
}

fn plan() -> impl Strategy<Value = Plan> {
    let trouble = prop_oneof![4 => Just(Trouble::Error), 1 => Just(Trouble::Panic), 1 => Just(Trouble::Hang)];
    let key = prop_oneof![1 => Just(None), 5 => (0_u8..4).prop_map(Some)];
    // Most messages are handled at once.
    let troubles = prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(trouble, 1..3)];
    (key, troubles, 0_u64..30).prop_map(|(key, troubles, work)| Plan { key, troubles, work })
}

/// Runs the plans through a router and answers what happened, in order.
async fn run(plans: Vec<Plan>, concurrency: usize, plain_log: bool) -> Vec<(usize, Event)> {
    let (_brokers, publisher, inbox) = orders().await;
    let (written, log_inbox, _outcomes) = partition();
    let inbox = if plain_log { log_inbox } else { inbox };
    let seen = log();
    let count = plans.len();
    let plans = Arc::new(plans);
    let handler = |State((plans, seen)): State<(Arc<Vec<Plan>>, Arc<common::Log<_>>)>,
                   Text(text): Text,
                   Attempt(attempt): Attempt| async move {
        let index: usize = text.parse()?;
        let plan: &Plan = &plans[index];
        seen.note((index, Event::Begun));
        sleep(Duration::from_millis(plan.work)).await;
        match plan.troubles.get(attempt as usize - 1) {
            None => {
                seen.note((index, Event::Done));
                Ok::<_, Failure>(())
            }
            Some(Trouble::Error) => Err(Failure::retry("planned")),
            Some(Trouble::Panic) => panic!("planned"),
            Some(Trouble::Hang) => std::future::pending().await,
        }
    };
    let backoff = Backoff::exponential(Duration::from_millis(20), Duration::from_millis(50));
    let router = Router::new()
        .route("ship", inbox, handler)
        .with_state((Arc::clone(&plans), Arc::clone(&seen)))
        .concurrency(concurrency)
        .policy(Policy::default().attempts(9).backoff(backoff).timeout(Duration::from_millis(100)));
    let router = start(router);
    for (index, plan) in plans.iter().enumerate() {
        let mut message = Message::new(index.to_string());
        message.key = plan.key.map(|key| key.to_string());
        if plain_log {
            written.send(message).unwrap();
        } else {
            publisher.publish(message).await.unwrap();
        }
    }
    let mut events = Vec::new();
    let mut done = 0;
    while done < count {
        let [event] = seen.wait(1).await.try_into().unwrap();
        done += usize::from(event.1 == Event::Done);
        events.push(event);
    }
    router.stop().await;
    events.extend(seen.rest());
    events
}

fn check(plans: &[Plan], events: &[(usize, Event)]) -> Result<(), TestCaseError> {
    let mut done = vec![0; plans.len()];
    let mut current = BTreeMap::<u8, usize>::new();
    for &(index, event) in events {
        done[index] += usize::from(event == Event::Done);
        let Some(key) = plans[index].key else { continue };
        let current = current.entry(key).or_default();
        prop_assert!(index >= *current, "{} after {} of the same key: {:?}", index, current, events);
        // A later message of the key may only begin once all earlier ones are done.
        let earlier = plans[..index].iter().zip(&done).filter(|(plan, _)| plan.key == Some(key));
        for (_, done) in earlier {
            prop_assert_eq!(*done, 1, "{} began too early: {:?}", index, events);
        }
        *current = index;
    }
    prop_assert!(done.iter().all(|done| *done == 1), "each is done once: {done:?}");
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    #[test]
    fn messages_of_a_key_are_handled_one_after_the_other(
        plans in proptest::collection::vec(plan(), 1..60),
        concurrency in 1_usize..9,
        plain_log: bool,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let events = runtime.block_on(run(plans.clone(), concurrency, plain_log));
        check(&plans, &events)?;
    }
}

proptest! {
    #![proptest_config(Config { cases: 8, failure_persistence: None, ..Config::default() })]

    #[test]
    fn several_threads_keep_the_order_too(
        plans in proptest::collection::vec(plan(), 1..60),
        plain_log: bool,
    ) {
        let runtime = Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
        let events = runtime.block_on(run(plans.clone(), 8, plain_log));
        check(&plans, &events)?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_by_the_router_holds_its_key_and_no_lane() {
    let (written, inbox, mut outcomes) = partition();
    let seen = log();
    let router = Router::new()
        .route(
            "ship",
            inbox,
            |State(seen): State<Arc<common::Log<String>>>, Text(text): Text, Attempt(attempt): Attempt| async move {
                seen.note(format!("{text} {attempt}"));
                if text == "k1" && attempt == 1 { Err(Failure::retry("busy")) } else { Ok(()) }
            },
        )
        .with_state(Arc::clone(&seen))
        .concurrency(1)
        .prefetch(9)
        .policy(Policy::default().backoff(Backoff::fixed(Duration::from_secs(5))));
    let router = start(router);
    for (key, body) in [("k", "k1"), ("k", "k2"), ("l", "l1"), ("l", "l2")] {
        written.send(Message::new(body).with_key(key)).unwrap();
    }
    assert_eq!(seen.wait(5).await, ["k1 1", "l1 1", "l2 1", "k1 2", "k2 1"]);
    router.stop().await;
    let mut settled = Vec::new();
    while let Ok((offset, outcome)) = outcomes.try_recv() {
        assert_eq!(outcome, mainspring_pubsub::driver::Outcome::Ack);
        settled.push(offset);
    }
    assert_eq!(settled, [2, 3, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_returns_what_waits_for_its_retry_or_its_turn_youngest_first() {
    let (written, inbox, mut outcomes) = partition();
    let seen = log();
    let router = Router::new()
        .route("ship", inbox, |State(seen): State<Arc<common::Log<()>>>| async move {
            seen.note(());
            Err(Failure::retry("busy"))
        })
        .with_state(Arc::clone(&seen))
        .prefetch(9)
        .policy(Policy::default().backoff(Backoff::fixed(Duration::from_secs(60))));
    let router = start(router);
    for body in ["k1", "k2", "k3"] {
        written.send(Message::new(body).with_key("k")).unwrap();
    }
    seen.wait(1).await;
    sleep(Duration::from_secs(1)).await;
    router.stop().await;
    for expected in [2, 1, 0] {
        assert_eq!(outcomes.recv().await, Some((expected, mainspring_pubsub::driver::Outcome::Return)));
    }
}
