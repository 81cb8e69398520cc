//! Policies that cannot work do not start; those that can keep their messages' leases.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::lending::Lending;
use common::scripted::Scripted;
use common::{log, orders, start};
use mainspring_config::ByteSize;
use mainspring_pubsub::driver::Capabilities;
use mainspring_pubsub::memory::{Broker, Config};
use mainspring_pubsub::{Attempt, Backoff, ErrorKind, Failure, Message, Policy, Router, State, Subscriber, Text};
use tokio::time::{Instant, sleep, timeout};

/// What a router says that does not start.
async fn refused(router: Router) -> String {
    let error = start(router).ended().await.expect_err("it starts");
    assert_eq!(error.kind(), ErrorKind::Config);
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.is::<mainspring_config::Error>(), "{source:?}");
    source.to_string()
}

fn shipping(inbox: Subscriber) -> Router {
    Router::new().route("ship", inbox, |Text(_): Text| async { Ok(()) })
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test]
async fn settings_that_no_broker_can_help_are_refused() {
    let policy = Policy::default;
    for (policy, what, hint) in [
        (policy().attempts(0), "no message would ever be handled", "use 1 to try each message once"),
        (policy().timeout(Duration::ZERO), "every handler would time out", "the default is 30 s"),
        (policy().timeout(Duration::MAX), "is no limit at all", "at most a year"),
        (
            policy().backoff(Backoff::exponential(secs(10), secs(1))),
            "the first pause, 10s, is longer than the longest, 1s",
            "raise `Backoff::max`",
        ),
        (policy().backoff(Backoff::fixed(Duration::MAX)), "for its next attempt", "at most a year"),
    ] {
        let (_brokers, _publisher, inbox) = orders().await;
        let said = refused(shipping(inbox).policy(policy)).await;
        assert!(said.contains(what) && said.contains(hint), "{said}");
    }
    let (_brokers, _publisher, inbox) = orders().await;
    let said = refused(shipping(inbox).max_bytes(ByteSize::mib(0))).await;
    assert!(said.contains("no message would ever be received"), "{said}");
}

#[tokio::test]
async fn a_route_that_would_receive_its_own_dead_letters_is_refused() {
    let (brokers, publisher, inbox) = orders().await;
    let said = refused(shipping(inbox).dead_letter(publisher)).await;
    assert!(said.contains("would receive its own dead letters from memory://orders, for ever"), "{said}");
    assert!(said.contains("a topic of their own"), "{said}");
    drop(brokers);
}

#[tokio::test]
async fn a_policy_that_outlasts_the_lease_is_refused_with_what_would_fit() {
    let once = |capabilities: &mut Capabilities| {
        capabilities.lease = Some(secs(20));
        capabilities.extend = false;
    };
    let in_all = |capabilities: &mut Capabilities| {
        capabilities.lease = Some(secs(20));
        capabilities.limits.lease = Some(secs(600));
    };
    let held_here = |capabilities: &mut Capabilities| {
        in_all(capabilities);
        capabilities.nack_delay = false;
    };
    let lent = async |change: &dyn Fn(&mut Capabilities), policy: Policy| {
        let (_brokers, _publisher, inbox) = orders().await;
        shipping(Lending::subscriber(inbox, change)).policy(policy)
    };

    let said = refused(lent(&once, Policy::default()).await).await;
    assert!(
        said.contains("route `ship`: a handler may take 30s over a message, and lending://orders lends it for 20s"),
        "{said}"
    );
    assert!(said.contains("which cannot be extended"), "{said}");
    assert!(said.contains("set a timeout of at most 20s"), "{said}");
    let said = refused(lent(&in_all, Policy::default().timeout(secs(601))).await).await;
    assert!(said.contains("for 600s at most, however often that is extended"), "{said}");
    let ten = Policy::default().attempts(10).timeout(secs(60)).backoff(Backoff::fixed(secs(1)));
    let said = refused(lent(&held_here, ten.clone()).await).await;
    assert!(said.contains("10 attempts may take 609s in all, during which the router holds the message"), "{said}");

    let short = Policy::default().max_lease(secs(25));
    let said = refused(lent(&|can| can.lease = Some(secs(20)), short.clone()).await).await;
    assert!(said.contains("a handler may take 30s over a message, and its lease is kept for 25s at most"), "{said}");
    assert!(said.contains("set a timeout of at most 25s, or raise `Policy::max_lease`"), "{said}");
    // Where loans have no end there is nothing to keep.
    start(lent(&|can| can.lease = None, short).await).stop().await;

    // The broker that makes the pauses itself does not lend the message meanwhile.
    for router in [lent(&in_all, ten).await, lent(&once, Policy::default().timeout(secs(20))).await] {
        start(router).stop().await;
    }
}

/// A broker that takes messages back after ten seconds.
fn lending() -> Broker {
    Broker::new(Config { visibility_timeout: mainspring_config::Duration::from_secs(10), ..Config::default() })
}

#[tokio::test(start_paused = true)]
async fn leases_of_messages_that_wait_are_extended_too() {
    let broker = lending();
    let log = log();
    let router = Router::new()
        .route(
            "ship",
            broker.subscriber("orders", "ship"),
            |State(log): State<Arc<common::Log<String>>>, Text(text): Text| async move {
                sleep(secs(25)).await;
                log.note(text);
                Ok(())
            },
        )
        .with_state(Arc::clone(&log))
        .concurrency(1)
        .prefetch(3);
    let router = start(router);
    for text in ["a", "b", "c", "d"] {
        broker.publisher("orders").publish(Message::new(text)).await.unwrap();
    }
    sleep(secs(1)).await;
    let mut other = broker.subscriber("orders", "ship");
    assert!(timeout(secs(98), other.next()).await.is_err(), "a message that waits was delivered twice");
    assert_eq!(log.wait(4).await, ["a", "b", "c", "d"]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_not_kept_longer_than_it_may() {
    let broker = lending();
    let slow = |Text(_): Text| async {
        sleep(secs(25)).await;
        Ok(())
    };
    let router = Router::new().route("ship", broker.subscriber("orders", "ship"), slow).concurrency(1).prefetch(3);
    let router = start(router.policy(Policy::default().max_lease(secs(60))));
    for text in ["a", "b", "c", "d"] {
        broker.publisher("orders").publish(Message::new(text)).await.unwrap();
    }
    sleep(secs(1)).await;
    let (mut other, began) = (broker.subscriber("orders", "ship"), Instant::now());
    let delivery = timeout(secs(600), other.next()).await.expect("it is kept for ever").unwrap().unwrap();
    let kept = began.elapsed();
    assert!(secs(50) < kept && kept <= secs(70), "{kept:?}");
    assert!(["c", "d"].contains(&common::text(&delivery).as_str()), "the others are done by then");
    delivery.ack().await.unwrap();
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_through_the_pauses_of_the_router_and_through_being_paused() {
    let broker = lending();
    let log = log();
    let router = Router::new()
        .route(
            "ship",
            // Its broker cannot delay, so the router holds the message.
            Scripted::new(broker.subscriber("orders", "ship"), []).into(),
            |State(log): State<Arc<common::Log<u32>>>, Attempt(attempt): Attempt| async move {
                log.note(attempt);
                if attempt == 1 { Err(Failure::retry("busy")) } else { Ok(()) }
            },
        )
        .with_state(Arc::clone(&log))
        .policy(Policy::default().backoff(Backoff::fixed(secs(60))));
    let handle = router.handle();
    let router = start(router);
    broker.publisher("orders").publish(Message::new("x")).await.unwrap();
    assert_eq!(log.wait(1).await, [1]);
    let mut other = broker.subscriber("orders", "ship");
    assert!(timeout(secs(30), other.next()).await.is_err(), "delivered twice during the pause before a retry");
    handle.pause("ship").unwrap();
    assert!(timeout(secs(300), other.next()).await.is_err(), "delivered twice while the route was paused");
    handle.resume("ship").unwrap();
    assert_eq!(log.wait(1).await, [2]);
    assert!(timeout(secs(30), other.next()).await.is_err(), "not acked");
    router.stop().await;
}
