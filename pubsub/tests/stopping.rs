//! What becomes of messages when a daemon stops, is aborted, or loses its broker.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::scripted::Scripted;
use common::{assert_empty, log, next, orders, start, text, volatile_orders};
use mainspring_pubsub::{Attempt, ErrorKind, Failure, Message, Router, State, Text};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

type Seen = Arc<common::Log<String>>;

/// Notes each message, and finishes when it is let.
async fn gated(State((seen, gate)): State<(Seen, Arc<Semaphore>)>, Text(text): Text) -> Result<(), Failure> {
    seen.note(text);
    gate.acquire().await?.forget();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_has_begun_and_returns_what_has_not() {
    let (brokers, publisher, inbox) = orders().await;
    let (seen, gate) = (log(), Arc::new(Semaphore::new(0)));
    let router = Router::new()
        .route("ship", inbox, gated)
        .with_state((Arc::clone(&seen), Arc::clone(&gate)))
        .concurrency(2)
        .prefetch(3);
    let mut router = start(router);
    for i in 0..9 {
        publisher.publish(Message::new(i.to_string())).await.unwrap();
    }
    assert_eq!(seen.wait(2).await, ["0", "1"]);
    router.request_stop(Duration::from_secs(20));
    sleep(Duration::from_secs(1)).await;
    gate.add_permits(9);
    router.ended().await.unwrap();
    assert_eq!(seen.rest(), [""; 0], "nothing began after the stop");
    assert_eq!((router.tally("deliveries_settled"), router.tally("deliveries_returned")), (2, 3));

    // The rest is as it was: in order, and no attempt is used up.
    let mut inbox = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    for i in 2..9 {
        let delivery = next(&mut inbox).await;
        assert_eq!((text(&delivery), delivery.attempt()), (i.to_string(), Some(1)));
        delivery.ack().await.unwrap();
    }
    assert_empty(&mut inbox);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_cut_off_at_the_deadline_and_its_message_returned() {
    let (brokers, publisher, inbox) = orders().await;
    let seen = log();
    let router = Router::new()
        .route("ship", inbox, gated)
        .with_state((Arc::clone(&seen), Arc::new(Semaphore::new(0))))
        .policy(mainspring_pubsub::Policy::default().attempts(1))
        .dead_letter(brokers.publisher("memory://rejects").await.unwrap());
    let mut router = start(router);
    publisher.publish(Message::new("stuck")).await.unwrap();
    seen.wait(1).await;
    let asked = Instant::now();
    router.request_stop(Duration::from_secs(5));
    router.ended().await.unwrap();
    assert_eq!(asked.elapsed(), Duration::from_secs(5));
    assert_eq!((router.tally("deliveries_settled"), router.tally("deliveries_returned")), (0, 1));
    let returned = next(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap()).await;
    assert_eq!((text(&returned), returned.attempt()), ("stuck".to_owned(), Some(1)));
    assert_empty(&mut brokers.subscriber("memory://rejects").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn failures_while_stopping_use_up_no_attempt_and_make_no_dead_letter() {
    let (brokers, publisher, inbox) = orders().await;
    let seen = log();
    let router = Router::new()
        .route("ship", inbox, |State(seen): State<Seen>, Text(text): Text| async move {
            seen.note(text.clone());
            sleep(Duration::from_secs(1)).await;
            match text.as_str() {
                "reject" => Err(Failure::reject("no")),
                "panic" => panic!("no"),
                _ => Err(Failure::retry("no")),
            }
        })
        .with_state(Arc::clone(&seen))
        .policy(mainspring_pubsub::Policy::default().attempts(1));
    let mut router = start(router);
    for text in ["retry", "reject", "panic"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    seen.wait(3).await;
    router.request_stop(Duration::from_secs(5));
    router.ended().await.unwrap();
    let mut inbox = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    for expected in ["retry", "reject", "panic"] {
        let delivery = next(&mut inbox).await;
        assert_eq!((text(&delivery).as_str(), delivery.attempt()), (expected, Some(1)));
        delivery.ack().await.unwrap();
    }
    assert_empty(&mut brokers.subscriber("memory://orders.dead").await.unwrap());
}

#[tokio::test]
async fn an_aborted_router_returns_everything_it_holds() {
    let (brokers, publisher, inbox) = orders().await;
    let seen = log();
    let router = Router::new()
        .route("ship", inbox, gated)
        .with_state((Arc::clone(&seen), Arc::new(Semaphore::new(0))))
        .concurrency(2);
    let router = start(router);
    for i in 0..10 {
        publisher.publish(Message::new(i.to_string())).await.unwrap();
    }
    seen.wait(2).await;
    router.abort().await;
    let mut inbox = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let mut returned = Vec::new();
    for _ in 0..10 {
        let delivery = next(&mut inbox).await;
        assert_eq!(delivery.attempt(), Some(1));
        returned.push(text(&delivery));
        delivery.ack().await.unwrap();
    }
    returned.sort();
    assert_eq!(returned, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[tokio::test]
async fn stopping_before_anything_came_ends_at_once() {
    let (_brokers, _publisher, inbox) = orders().await;
    let router = start(Router::new().route("ship", inbox, |Text(_): Text| async { Ok(()) }));
    router.stop().await;
}

#[tokio::test]
async fn readiness_waits_for_every_route_to_receive() {
    let (_brokers, _publisher, inbox) = orders().await;
    let router = Router::new().route("ship", inbox, |Text(_): Text| async { Ok(()) });
    let (trigger, cx) = mainspring_daemon::Context::test("ship");
    let running = router.run(cx.clone());
    assert_eq!(cx.board().unready().len(), 1, "held before the first poll");
    let mut task = tokio::task::JoinSet::new();
    task.spawn(running);
    tokio::time::timeout(common::PATIENCE, async {
        while !cx.board().unready().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("ready in the end");
    trigger.request(Instant::now());
    task.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn errors_that_may_pass_are_waited_out_and_shown() {
    let (_brokers, publisher, inbox) = orders().await;
    let flaky = Scripted::new(inbox, [ErrorKind::Unavailable, ErrorKind::Throttled, ErrorKind::Unavailable]);
    let seen = log();
    let router = Router::new()
        .route("ship", flaky.into(), |State(seen): State<Seen>, Text(text): Text| async move {
            seen.note(text);
            Ok(())
        })
        .with_state(Arc::clone(&seen));
    let router = start(router);
    publisher.publish(Message::new("a")).await.unwrap();
    tokio::task::yield_now().await;
    let unready = router.cx.board().unready();
    assert!(unready[0].1.contains("route `ship` cannot receive: scripted: receive: on purpose"), "{unready:?}");
    assert_eq!(seen.wait(1).await, ["a"]);
    assert_eq!(router.cx.board().unready(), []);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_that_will_not_pass_stops_every_route_in_order() {
    let (brokers, publisher, inbox) = orders().await;
    let broken = brokers.subscriber("memory://other").await.unwrap();
    let broken = Scripted::new(broken, [ErrorKind::PermissionDenied]).after(Duration::from_secs(1));
    let (seen, gate) = (log(), Arc::new(Semaphore::new(0)));
    let router = Router::new()
        .route("ship", inbox, gated)
        .route("broken", broken.into(), |Text(_): Text| async { Ok(()) })
        .with_state((Arc::clone(&seen), Arc::clone(&gate)))
        .concurrency(1);
    let mut router = start(router);
    for body in ["begun", "pulled", "left"] {
        publisher.publish(Message::new(body)).await.unwrap();
    }
    seen.wait(1).await;
    sleep(Duration::from_secs(2)).await;
    gate.add_permits(9);
    let error = router.ended().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(seen.rest(), [""; 0]);
    assert_eq!((router.tally("deliveries_settled"), router.tally("deliveries_returned")), (1, 1));
    let left = next(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap()).await;
    assert_eq!((text(&left).as_str(), left.attempt()), ("pulled", Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_route_that_fails_for_good_finishes_what_it_has_begun() {
    let (brokers, publisher, mut inbox) = orders().await;
    for body in ["begun", "pulled"] {
        publisher.publish(Message::new(body)).await.unwrap();
    }
    let held = [next(&mut inbox).await, next(&mut inbox).await];
    let mut failing = Scripted::new(inbox, [ErrorKind::PermissionDenied]).after(Duration::from_secs(1));
    failing.held.extend(held);
    let (seen, gate) = (log(), Arc::new(Semaphore::new(0)));
    let router = Router::new()
        .route("ship", failing.into(), gated)
        .with_state((Arc::clone(&seen), Arc::clone(&gate)))
        .concurrency(1)
        .prefetch(5);
    let mut router = start(router);
    seen.wait(1).await;
    sleep(Duration::from_secs(2)).await;
    gate.add_permits(9);
    assert_eq!(router.ended().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!((seen.rest(), router.tally("deliveries_settled")), (Vec::new(), 1));
    let left = next(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap()).await;
    assert_eq!(text(&left), "pulled");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_does_not_close_as_it_should_is_named_at_the_stop() {
    let (_brokers, publisher, inbox) = orders().await;
    let seen = log();
    let inbox = Scripted::new(inbox, []).failing_to_close(ErrorKind::Lost);
    let router =
        Router::new().route("ship", inbox.into(), gated).with_state((Arc::clone(&seen), Arc::new(Semaphore::new(1))));
    let mut router = start(router);
    publisher.publish(Message::new("acked")).await.unwrap();
    seen.wait(1).await;
    router.request_stop(Duration::from_secs(5));
    router.ended().await.unwrap();
    let mut failed = Vec::new();
    for flush in router.cx.board().take_flushes() {
        failed.extend(flush.run().await.err().map(|error| error.to_string()));
    }
    assert_eq!(failed, ["route `ship`: scripted: close: on purpose"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_subscriber_ends_the_router_after_its_last_message() {
    let (_brokers, publisher, mut inbox) = orders().await;
    publisher.publish(Message::new("a")).await.unwrap();
    let only = next(&mut inbox).await;
    inbox.close(Instant::now()).await.unwrap();
    let mut closed = Scripted::new(inbox, []);
    closed.held.push_back(only);
    let seen = log();
    // Retries of this broker are made by the router, which must not end before they are done.
    let router = Router::new()
        .route("ship", closed.into(), |State(seen): State<Seen>, Attempt(attempt): Attempt| async move {
            seen.note(format!("attempt {attempt}"));
            if attempt < 3 { Err(Failure::retry("again")) } else { Ok(()) }
        })
        .with_state(Arc::clone(&seen));
    start(router).ended().await.unwrap();
    assert_eq!(seen.rest(), ["attempt 1", "attempt 2", "attempt 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_gone_with_the_process_is_worked_off_first() {
    let (brokers, publisher, inbox) = volatile_orders().await;
    let (seen, gate) = (log(), Arc::new(Semaphore::new(0)));
    let router = Router::new()
        .route("ship", inbox, gated)
        .with_state((Arc::clone(&seen), Arc::clone(&gate)))
        .concurrency(2)
        .prefetch(3);
    let mut router = start(router);
    for i in 0..20 {
        publisher.publish(Message::new(i.to_string()).with_key((i % 3).to_string())).await.unwrap();
    }
    seen.wait(2).await;
    router.request_stop(Duration::from_secs(20));
    // A request that is still being answered may publish.
    sleep(Duration::from_secs(1)).await;
    publisher.publish(Message::new("late")).await.unwrap();
    gate.add_permits(100);
    sleep(Duration::from_secs(1)).await;
    publisher.publish(Message::new("later")).await.unwrap();
    router.requests_finished();
    let asked = Instant::now();
    router.ended().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "it does not wait for more");
    assert_eq!((router.tally("deliveries_settled"), router.tally("deliveries_returned")), (22, 0));
    assert_empty(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn working_a_queue_off_ends_with_the_time_for_it() {
    let (_brokers, publisher, inbox) = volatile_orders().await;
    let (seen, gate) = (log(), Arc::new(Semaphore::new(3)));
    let router = Router::new().route("ship", inbox, gated).with_state((Arc::clone(&seen), gate)).concurrency(1);
    let mut router = start(router);
    for i in 0..9 {
        publisher.publish(Message::new(i.to_string())).await.unwrap();
    }
    seen.wait(4).await;
    let asked = Instant::now();
    router.request_stop(Duration::from_secs(5));
    router.requests_finished();
    router.ended().await.unwrap();
    assert_eq!(asked.elapsed(), Duration::from_secs(5));
    assert_eq!(router.tally("deliveries_settled"), 3);
}

#[tokio::test(start_paused = true)]
async fn what_fails_while_a_queue_is_worked_off_is_tried_again() {
    let (_brokers, publisher, inbox) = volatile_orders().await;
    let seen = log();
    let router = Router::new()
        .route("ship", inbox, |State(seen): State<Seen>, Attempt(attempt): Attempt| async move {
            seen.note(attempt.to_string());
            if attempt < 3 { Err(Failure::retry("not yet")) } else { Ok(()) }
        })
        .with_state(Arc::clone(&seen));
    let mut router = start(router);
    router.request_stop(Duration::from_secs(20));
    publisher.publish(Message::new("stubborn")).await.unwrap();
    router.requests_finished();
    router.ended().await.unwrap();
    assert_eq!(seen.rest(), ["1", "2", "3"]);
    assert_eq!((router.tally("deliveries_settled"), router.tally("deliveries_returned")), (3, 0));
}
