//! Order per key, under concurrency and random failures: on a broker that delays retries itself, and on one where the
//! router has to.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::scripted::Scripted;
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
async fn run(plans: Vec<Plan>, concurrency: usize, router_retries: bool) -> Vec<(usize, Event)> {
    let (_brokers, publisher, inbox) = orders().await;
    let inbox = if router_retries { Scripted::new(inbox, []).into() } else { inbox };
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
        publisher.publish(message).await.unwrap();
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
        router_retries: bool,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let events = runtime.block_on(run(plans.clone(), concurrency, router_retries));
        check(&plans, &events)?;
    }
}

proptest! {
    #![proptest_config(Config { cases: 8, failure_persistence: None, ..Config::default() })]

    #[test]
    fn several_threads_keep_the_order_too(
        plans in proptest::collection::vec(plan(), 1..60),
        router_retries: bool,
    ) {
        let runtime = Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
        let events = runtime.block_on(run(plans.clone(), 8, router_retries));
        check(&plans, &events)?;
    }
}
