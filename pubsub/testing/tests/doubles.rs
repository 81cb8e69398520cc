//! The test doubles and the harness.

use std::task::{Context, Poll};
use std::time::Duration;

use mainspring_pubsub::driver::{self, Capabilities, Outcome};
use mainspring_pubsub::{
    Attempt, Backoff, Delivery, Error, ErrorKind, Failure, Message, Policy, Router, State, Subscriber, Text,
};
use mainspring_testing::{Harness, Recorder, Running, Script, Tally};
use tokio::time::{Instant, sleep};

async fn ship(Text(order): Text, Attempt(attempt): Attempt) -> Result<(), Failure> {
    match order.as_str() {
        "once more" if attempt == 1 => Err("not yet".into()),
        "never" => Err(Failure::reject("no such thing")),
        "slow" => {
            sleep(Duration::from_secs(10)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[tokio::test(start_paused = true)]
async fn settled_waits_for_every_message_and_its_retries() {
    let harness = Harness::new();
    let policy = Policy::default().backoff(Backoff::fixed(Duration::from_secs(5)));
    let inbox = harness.subscriber("orders", "ship");
    let router = harness.start(Router::new().route("ship", inbox, ship).policy(policy));
    let started = Instant::now();
    for body in ["tea", "once more", "never", "slow"] {
        harness.publish("orders", Message::new(body)).await;
    }
    let tally = harness.settled().await;
    assert_eq!(tally, Tally { acked: 3, nacked: 1, rejected: 1, ..Tally::default() });
    assert_eq!(started.elapsed(), Duration::from_secs(10), "it waited for the slow one and no longer");
    assert_eq!(harness.published("orders").len(), 4);
    let dead = harness.published("orders.dead");
    assert_eq!((dead.len(), dead[0].body.as_ref()), (1, &b"never"[..]));
    assert_eq!(dead[0].attributes["dead-letter-reason"], "no such thing");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn urls_open_the_same_broker() {
    let harness = Harness::new();
    let brokers = harness.brokers();
    let inbox = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let orders = brokers.publisher("memory://orders").await.unwrap();
    let router = harness.start(Router::new().route("ship", inbox, ship));
    orders.publish(Message::new("tea")).await.unwrap();
    assert_eq!(harness.settled().await.acked, 1);
    assert_eq!(harness.published("orders").len(), 1);
    assert_eq!(brokers.publisher("memory://orders?nonsense=1").await.unwrap_err().kind(), ErrorKind::Config);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_group_has_to_settle() {
    let harness = Harness::new();
    let (mut one, mut two) = (harness.subscriber("orders", "one"), harness.subscriber("orders", "two"));
    harness.publish("orders", Message::new("tea").with_id("t1")).await;
    one.next().await.unwrap().unwrap().ack().await.unwrap();
    let left = harness.settled_within(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(left, "`two` of `orders` has 1 left (t1)");
    two.next().await.unwrap().unwrap().ack().await.unwrap();
    assert_eq!(harness.settled().await.acked, 2);
    // A late group starts with what was published before it, and is waited for.
    let mut late = harness.subscriber("orders", "late");
    assert!(harness.settled_within(Duration::from_secs(60)).await.is_err());
    drop(late.next().await.unwrap().unwrap());
    late.next().await.unwrap().unwrap().ack().await.unwrap();
    assert_eq!(harness.settled().await, Tally { acked: 3, nacked: 1, ..Tally::default() });
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "settled in 3600s, see `Harness::with_patience`: `ship` of `orders` has 1 left (t1)")]
async fn settled_says_what_is_left_when_its_patience_is_over() {
    let harness = Harness::new().with_patience(Duration::from_secs(3600));
    let _inbox = harness.subscriber("orders", "ship");
    harness.publish("orders", Message::new("tea").with_id("t1")).await;
    harness.settled().await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "two routes are called `ship`")]
async fn settled_says_at_once_why_a_router_did_not_start() {
    let harness = Harness::new().with_patience(Duration::MAX);
    let router = Router::new().route("ship", harness.subscriber("orders", "ship"), ship);
    let _router = harness.start(router.route("ship", harness.subscriber("orders", "ship"), ship));
    harness.publish("orders", Message::new("tea")).await;
    harness.settled().await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a router has failed: it panicked")]
async fn settled_says_at_once_that_a_router_panicked() {
    let harness = Harness::new().with_patience(Duration::MAX);
    let _inbox = harness.subscriber("orders", "ship");
    let _router = harness.start(Router::new().route("ship", Subscriber::new(Panics), ship));
    harness.publish("orders", Message::new("tea")).await;
    harness.settled().await;
}

/// A driver with a fault.
#[derive(Debug)]
struct Panics;

#[async_trait::async_trait]
impl driver::Subscriber for Panics {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        panic!("on purpose")
    }

    async fn close(&mut self, _: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn endpoint(&self) -> driver::Endpoint {
        driver::Endpoint::new("faulty", "orders")
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.reject = true;
        capabilities
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_router_counts_until_it_is_known() {
    let harness = Harness::new();
    let mut empty = harness.start(Router::new());
    assert!(empty.ended(Duration::from_secs(60)).await.unwrap().is_err());
    drop(harness.start(Router::new()));
    let inbox = harness.subscriber("orders", "ship");
    let router = harness.start(Router::new().route("ship", inbox, ship));
    harness.publish("orders", Message::new("slow")).await;
    assert_eq!(harness.settled().await.acked, 1);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_refused_is_not_waited_for() {
    let harness = Harness::new();
    let _inbox = harness.subscriber("orders", "ship");
    let error = harness.try_publish("orders", Message::new(vec![0; 2 << 20])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(harness.settled().await, Tally::default());
    assert!(harness.published("orders").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_aborted_router_leaves_its_messages() {
    let harness = Harness::new();
    let router = harness.start(Router::new().route("ship", harness.subscriber("orders", "ship"), ship));
    harness.publish("orders", Message::new("slow")).await;
    sleep(Duration::from_secs(1)).await;
    router.abort().await;
    assert!(harness.settled_within(Duration::from_secs(60)).await.is_err());
    let router = harness.start(Router::new().route("ship", harness.subscriber("orders", "ship"), ship));
    assert_eq!(harness.settled().await, Tally { acked: 1, returned: 1, ..Tally::default() });
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_works_the_queue_off_as_on_the_broker_itself() {
    let harness = Harness::new();
    let inbox = harness.subscriber("orders", "ship");
    let router = harness.start(Router::new().route("ship", inbox, ship).concurrency(2));
    for _ in 0..6 {
        harness.publish("orders", Message::new("slow")).await;
    }
    sleep(Duration::from_secs(1)).await;
    router.request_stop(Duration::from_secs(60));
    assert_eq!(harness.settled().await, Tally { acked: 6, ..Tally::default() });
}

#[tokio::test(start_paused = true)]
async fn a_recorder_fails_as_told_and_keeps_the_rest() {
    let recorder = Recorder::new();
    recorder.succeed_next();
    recorder.fail_next(ErrorKind::Throttled);
    recorder.lose_next_answer();
    recorder.hang_next();
    recorder.delay_next(Duration::from_secs(5));
    let publisher = recorder.publisher();
    let started = Instant::now();
    let mut outcomes = Vec::new();
    for body in ["a", "b", "c", "d", "e", "f"] {
        outcomes.push(publisher.publish(Message::new(body)).await.map_err(|error| error.kind()).err());
    }
    let (throttled, timeout) = (Some(ErrorKind::Throttled), Some(ErrorKind::Timeout));
    assert_eq!(outcomes, [None, throttled, timeout, timeout, None, None]);
    assert_eq!(started.elapsed(), Duration::from_secs(17), "12 s until the deadline, and the delay");
    let bodies: Vec<_> = recorder.messages().into_iter().map(|message| message.body).collect();
    assert_eq!(bodies, ["a", "c", "e", "f"], "what was lost is the answer, not the message");
    assert_eq!(recorder.tried(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_enforces_the_limits_it_claims() {
    let mut capabilities = Capabilities::default();
    capabilities.limits.message_bytes = Some(3);
    let recorder = Recorder::new().with_capabilities(capabilities);
    let error = recorder.publisher().publish(Message::new("long")).await.unwrap_err();
    assert_eq!((error.kind(), recorder.tried()), (ErrorKind::TooLarge, 0));
}

#[tokio::test(start_paused = true)]
async fn wait_for_waits_for_the_message() {
    let recorder = Recorder::new();
    let publisher = recorder.publisher();
    let (messages, ()) = tokio::join!(recorder.wait_for(2), async {
        publisher.publish(Message::new("a")).await.unwrap();
        sleep(Duration::from_secs(9)).await;
        publisher.publish(Message::new("b")).await.unwrap();
    });
    assert_eq!(messages.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_script_is_said_in_order_and_settlements_are_kept() {
    let mut capabilities = Capabilities::default();
    capabilities.nack = true;
    let script = Script::new()
        .with_capabilities(capabilities)
        .error(ErrorKind::Unavailable)
        .message(Message::new("a"))
        .pause(Duration::from_secs(7))
        .attempt(Message::new("b"), 4)
        .lost(Message::new("c"))
        .message(Message::new("d"))
        .closed();
    let (mut inbox, settlements) = script.subscriber();
    let started = Instant::now();
    assert_eq!(inbox.next().await.unwrap_err().kind(), ErrorKind::Unavailable);
    inbox.next().await.unwrap().unwrap().ack().await.unwrap();
    let second = inbox.next().await.unwrap().unwrap();
    assert_eq!((second.attempt(), started.elapsed()), (Some(4), Duration::from_secs(7)));
    second.nack().await.unwrap();
    let error = inbox.next().await.unwrap().unwrap().ack().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    let error = inbox.next().await.unwrap().unwrap().reject("no").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(inbox.next().await.unwrap().is_none());
    let outcomes: Vec<_> = settlements.wait_for(4).await.into_iter().map(|settled| settled.outcome).collect();
    let rejected = Outcome::Reject { reason: "no".to_owned(), letter: None };
    assert_eq!(outcomes, [Outcome::Ack, Outcome::Nack { after: None }, Outcome::Ack, rejected]);
}

#[tokio::test(start_paused = true)]
async fn a_router_lives_through_a_script_of_errors_and_publishes_what_it_should() {
    async fn forward(State(to): State<mainspring_pubsub::Publisher>, Text(text): Text) -> Result<(), Failure> {
        to.publish(Message::new(format!("{text}!"))).await?;
        Ok(())
    }
    let recorder = Recorder::new();
    let script = Script::new().error(ErrorKind::Unavailable).message(Message::new("hello")).closed();
    let (inbox, settlements) = script.subscriber();
    let mut running = Running::start(Router::new().route("forward", inbox, forward).with_state(recorder.publisher()));
    running.ended(Duration::from_secs(60)).await.expect("the script ends the router").unwrap();
    assert_eq!(recorder.messages()[0].body, "hello!");
    assert_eq!(settlements.so_far()[0].outcome, Outcome::Ack);
}
