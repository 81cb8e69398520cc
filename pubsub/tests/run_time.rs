//! Routes that are added and removed while their router runs.

mod common;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, log, next, orders, start, text};
use mainspring_daemon::{Context, PageRequest};
use mainspring_pubsub::{ErrorKind, Failure, Message, Policy, RouteState, Router, State, Subscriber, Text};
use tokio::time::{Instant, sleep};

type Seen = Arc<common::Log<String>>;

async fn note(State(log): State<Seen>, Text(text): Text) -> Result<(), Failure> {
    log.note(text);
    Ok(())
}

async fn ignore(Text(_): Text) -> Result<(), Failure> {
    Ok(())
}

async fn page(cx: &Context) -> String {
    cx.board().pages().remove(0).render(PageRequest::new("GET", "", "")).await.body
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_added_is_run_shown_paused_and_stopped_like_the_others() {
    let (brokers, publisher, inbox) = orders().await;
    let (ship, audit): (Seen, Seen) = (log(), log());
    let router = Router::new().route("ship", inbox, note).with_state(Arc::clone(&ship));
    let handle = router.handle();
    let router = start(router);
    publisher.publish(Message::new("a")).await.unwrap();
    assert_eq!(ship.wait(1).await, ["a"]);

    let inbox = brokers.subscriber("memory://orders?group=audit").await.unwrap();
    handle.add(Router::new().route("audit", inbox, note).with_state(Arc::clone(&audit))).await.unwrap();
    assert_eq!(audit.wait(1).await, ["a"]);
    assert_eq!(handle.routes(), [("ship", RouteState::Running), ("audit", RouteState::Running)]);
    assert!(
        page(&router.cx).await.contains("route audit: memory://orders?group=audit\n"),
        "{}",
        page(&router.cx).await
    );
    assert!(router.cx.board().unready().is_empty());

    handle.pause("audit").unwrap();
    publisher.publish(Message::new("b")).await.unwrap();
    assert_eq!(ship.wait(1).await, ["b"]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(audit.rest(), [""; 0]);
    handle.resume("audit").unwrap();
    assert_eq!(audit.wait(1).await, ["b"]);
    let cx = router.cx.clone();
    router.stop().await;
    assert_eq!(handle.routes(), [("ship", RouteState::Ended), ("audit", RouteState::Ended)]);
    assert_eq!(cx.board().take_flushes().len(), 1, "both belong to the same brokers");
}

#[tokio::test(start_paused = true)]
async fn removing_a_route_waits_for_its_handlers_and_frees_its_name() {
    let (brokers, publisher, inbox) = orders().await;
    let seen: Seen = log();
    let slow = |State(log): State<Seen>, Text(text): Text| async move {
        log.note(format!("begun {text}"));
        sleep(Duration::from_secs(5)).await;
        log.note(format!("done {text}"));
        Ok(())
    };
    let other = brokers.subscriber("memory://other").await.unwrap();
    let router = Router::new().route("other", other, ignore).route("ship", inbox, slow).concurrency(1);
    let router = router.with_state(Arc::clone(&seen));
    let handle = router.handle();
    let router = start(router);
    for text in ["a", "b"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    assert_eq!(seen.wait(1).await, ["begun a"]);
    let began = Instant::now();
    handle.remove("ship").await.unwrap();
    assert_eq!((began.elapsed().as_secs(), seen.rest()), (5, vec!["done a".to_owned()]));
    assert_eq!(handle.state("ship"), None);
    assert!(!page(&router.cx).await.contains("route ship"));
    assert_eq!(handle.remove("ship").await.unwrap_err().kind(), ErrorKind::NotFound);

    // What it held is there for the next of that name.
    let inbox = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    handle.add(Router::new().route("ship", inbox, note).with_state(Arc::clone(&seen))).await.unwrap();
    assert_eq!(seen.wait(1).await, ["b"]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_added_is_refused_by_name_and_changes_nothing() {
    let (brokers, publisher, inbox) = orders().await;
    let seen: Seen = log();
    let router = Router::new().route("ship", inbox, note).with_state(Arc::clone(&seen));
    let handle = router.handle();
    let fresh = async |group: &str| brokers.subscriber(&format!("memory://orders?group={group}")).await.unwrap();

    let early = handle.add(Router::new().route("audit", fresh("audit").await, ignore)).await.unwrap_err();
    assert_eq!((early.kind(), early.to_string().contains("does not run")), (ErrorKind::Closed, true), "{early}");
    let router = start(router);
    let twice = Router::new().route("audit", fresh("audit").await, ignore).route("ship", fresh("x").await, ignore);
    let hasty =
        Router::new().route("hasty", fresh("x").await, ignore).policy(Policy::default().timeout(Duration::ZERO));
    for (added, what) in [
        (twice, "there is a route `ship` already, and it runs"),
        (hasty, "every handler would time out"),
        (
            Router::new().route("lost", nowhere(fresh("x").await), ignore),
            "route `lost`: lending://orders keeps no dead letters",
        ),
        (Router::new(), "the router has no route"),
    ] {
        let error = handle.add(added).await.unwrap_err();
        let said = format!("{error}: {}", error.source().unwrap());
        assert_eq!(error.kind(), ErrorKind::Config, "{said}");
        assert!(said.contains(what), "{said}");
    }
    assert_eq!(handle.routes(), [("ship", RouteState::Running)]);
    publisher.publish(Message::new("a")).await.unwrap();
    assert_eq!(seen.wait(1).await, ["a"]);
    assert!(router.cx.board().unready().is_empty(), "{:?}", router.cx.board().unready());
    router.stop().await;
    let late = handle.add(Router::new().route("audit", fresh("audit").await, ignore)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_added_route_that_fails_for_good_stops_the_router() {
    let (brokers, _publisher, inbox) = orders().await;
    let router = Router::new().route("ship", inbox, ignore);
    let handle = router.handle();
    let mut router = start(router);
    let inner = brokers.subscriber("memory://other").await.unwrap();
    let broken = common::scripted::Scripted::new(inner, [ErrorKind::PermissionDenied]);
    handle.add(Router::new().route("broken", broken.into(), ignore)).await.unwrap();
    assert_eq!(router.ended().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(handle.routes(), [("ship", RouteState::Ended), ("broken", RouteState::Ended)]);
}

#[tokio::test(start_paused = true)]
async fn an_added_queue_in_memory_is_worked_off_at_the_stop() {
    let (brokers, _publisher, inbox) = common::volatile_orders().await;
    let seen: Seen = log();
    let router = Router::new().route("ship", inbox, ignore);
    let handle = router.handle();
    let mut router = start(router);
    let slow = |State(log): State<Seen>, Text(text): Text| async move {
        sleep(Duration::from_secs(1)).await;
        log.note(text);
        Ok(())
    };
    let inbox = brokers.subscriber("memory://late?group=late").await.unwrap();
    handle.add(Router::new().route("late", inbox, slow).with_state(Arc::clone(&seen)).concurrency(1)).await.unwrap();
    let publisher = brokers.publisher("memory://late").await.unwrap();
    for text in ["a", "b", "c"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    router.request_stop(PATIENCE);
    router.requests_finished();
    router.ended().await.unwrap();
    assert_eq!(seen.rest(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn when_the_last_route_is_removed_the_router_ends() {
    let (brokers, publisher, inbox) = orders().await;
    let router = Router::new().route("ship", inbox, ignore);
    let handle = router.handle();
    let mut router = start(router);
    handle.remove("ship").await.unwrap();
    router.ended().await.unwrap();
    publisher.publish(Message::new("a")).await.unwrap();
    assert_eq!(text(&next(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap()).await), "a");
}

/// A subscriber whose broker keeps no dead letters, and has no place for them.
fn nowhere(inner: Subscriber) -> Subscriber {
    common::lending::Lending::subscriber(inner, |capabilities| capabilities.reject = false)
}
