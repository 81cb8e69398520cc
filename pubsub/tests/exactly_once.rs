//! Routers whose outputs and acks are one step.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::scripted::Scripted;
use mainspring_daemon::Context;
use mainspring_pubsub::{
    Backoff, Brokers, BrokersConfig, ErrorKind, Failure, Message, Outbox, Policy, Publisher, Router, State, Subscriber,
    Text,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

async fn shout(Text(text): Text, State(to): State<Publisher>, outbox: Outbox) -> Result<(), Failure> {
    outbox.publish(&to, Message::new(text.to_uppercase()))?;
    Ok(())
}

fn brokers() -> Brokers {
    Brokers::new(&BrokersConfig::default()).unwrap()
}

async fn received(from: &mut Subscriber) -> String {
    let delivery = timeout(Duration::from_secs(3600), from.next()).await.unwrap().unwrap().unwrap();
    let text = String::from_utf8(delivery.message().body.to_vec()).unwrap();
    delivery.ack().await.unwrap();
    text
}

fn said(error: mainspring_pubsub::Error) -> String {
    assert_eq!(error.kind(), ErrorKind::Config);
    std::error::Error::source(&error).unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_attempt_left_is_never_published() {
    let brokers = brokers();
    let to = brokers.publisher("memory://loud").await.unwrap();
    let mut out = brokers.subscriber("memory://loud?group=g").await.unwrap();
    let inbox = brokers.subscriber("memory://quiet?group=g").await.unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (to, attempts) = (to.clone(), Arc::clone(&attempts));
        move |Text(text): Text, outbox: Outbox| {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed);
            let to = to.clone();
            async move {
                outbox.publish(&to, Message::new(format!("{text}-{attempt}")))?;
                assert!(attempt != 0, "the first attempt panics");
                if attempt == 1 { Err(Failure::retry("the second fails")) } else { Ok(()) }
            }
        }
    };
    let router = Router::new().route("shout", inbox, handler).exactly_once();
    let (stop, cx) = Context::test("shout");
    let mut running = JoinSet::new();
    running.spawn(router.run(cx));
    brokers.publisher("memory://quiet").await.unwrap().publish(Message::new("hi")).await.unwrap();
    assert_eq!(received(&mut out).await, "hi-2");
    stop.request(Instant::now() + Duration::from_secs(10));
    running.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    assert!(timeout(Duration::from_secs(60), out.next()).await.is_err(), "there is one output");
}

#[tokio::test(start_paused = true)]
async fn a_full_topic_keeps_both_the_output_and_the_ack_back() {
    let mut config = BrokersConfig::default();
    config.memory.capacity = 1;
    let brokers = Brokers::new(&config).unwrap();
    let to = brokers.publisher("memory://loud").await.unwrap();
    let mut out = brokers.subscriber("memory://loud?group=g").await.unwrap();
    let inbox = brokers.subscriber("memory://quiet?group=g").await.unwrap();
    let (_stop, cx) = Context::test("shout");
    let mut running = JoinSet::new();
    running.spawn(Router::new().route("shout", inbox, shout).with_state(to).exactly_once().run(cx));
    let quiet = brokers.publisher("memory://quiet").await.unwrap();
    quiet.publish(Message::new("a")).await.unwrap();
    quiet.publish(Message::new("b")).await.unwrap();
    // There is no room for `B`, so `b` is not acked either, and there is none for a third message.
    let third = timeout(Duration::from_secs(10), quiet.publish(Message::new("c"))).await;
    assert!(third.is_err(), "{third:?}");
    for text in ["A", "B"] {
        assert_eq!(received(&mut out).await, text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_published_with_the_ack() {
    let brokers = brokers();
    let inbox = brokers.subscriber("memory://quiet?group=g").await.unwrap();
    let mut dead = brokers.subscriber("memory://hopeless?group=g").await.unwrap();
    let handler = |_: Outbox| async { Err(Failure::reject("never")) };
    let router = Router::new().route("shout", inbox, handler).exactly_once();
    let router = router.dead_letter(brokers.publisher("memory://hopeless").await.unwrap());
    let (_stop, cx) = Context::test("shout");
    let mut running = JoinSet::new();
    running.spawn(router.run(cx));
    brokers.publisher("memory://quiet").await.unwrap().publish(Message::new("hi")).await.unwrap();
    assert_eq!(received(&mut dead).await, "hi");
}

#[tokio::test]
async fn a_router_that_cannot_be_exactly_once_refuses_to_start() {
    let brokers = brokers();
    let (_stop, cx) = Context::test("shout");
    let to = brokers.publisher("memory://loud").await.unwrap();
    let scripted = Subscriber::from(Scripted::new(brokers.subscriber("memory://x?group=g").await.unwrap(), []));
    let router = Router::new().route("shout", scripted, shout).with_state(to.clone()).exactly_once();
    let error = said(router.run(cx.clone()).await.unwrap_err());
    assert!(error.contains("scripted://orders has no transactions"), "{error}");

    let inbox = brokers.subscriber("memory://quiet?group=g").await.unwrap();
    let router = Router::new().route("shout", inbox, shout).with_state(to);
    let error = said(router.run(cx.clone()).await.unwrap_err());
    assert!(error.contains("the handler of route `shout` takes an `Outbox`"), "{error}");

    let inbox = brokers.subscriber("memory://quiet?group=g").await.unwrap();
    let router = Router::new().route("shout", inbox, |_: Text| async { Ok(()) }).exactly_once();
    let other = self::brokers().publisher("memory://dead").await.unwrap();
    let error = said(router.dead_letter(other).run(cx).await.unwrap_err());
    assert!(error.contains("not on the same broker"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_outbox_takes_nothing_for_another_broker_and_nothing_too_late() {
    let (brokers, others) = (brokers(), brokers());
    let (near, far) =
        (brokers.publisher("memory://loud").await.unwrap(), others.publisher("memory://loud").await.unwrap());
    let (kept, keep) = tokio::sync::oneshot::channel();
    let kept = Arc::new(std::sync::Mutex::new(Some(kept)));
    let handler = move |outbox: Outbox| {
        let (far, kept) = (far.clone(), Arc::clone(&kept));
        async move {
            let error = outbox.publish(&far, Message::new("far")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let kept = kept.lock().unwrap().take().unwrap();
            kept.send(outbox).unwrap();
            Ok(())
        }
    };
    let inbox = brokers.subscriber("memory://quiet?group=g").await.unwrap();
    let policy = Policy::default().attempts(1).backoff(Backoff::fixed(Duration::ZERO));
    let router = Router::new().route("shout", inbox, handler).policy(policy).exactly_once();
    let (stop, cx) = Context::test("shout");
    let mut running = JoinSet::new();
    running.spawn(router.run(cx));
    brokers.publisher("memory://quiet").await.unwrap().publish(Message::new("hi")).await.unwrap();
    let outbox = keep.await.unwrap();
    stop.request(Instant::now() + Duration::from_secs(10));
    running.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(outbox.publish(&near, Message::new("late")).unwrap_err().kind(), ErrorKind::Closed);
}
