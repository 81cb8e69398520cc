//! Pausing, resuming and draining routes while they run, by handle and by POST.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, assert_empty, log, next, orders, start, text, volatile_orders};
use mainspring_daemon::{Context, PageRequest, PageResponse};
use mainspring_pubsub::driver::PartitionProgress;
use mainspring_pubsub::{
    Attempt, Backoff, ErrorKind, Failure, Message, Policy, RouteState, Router, RouterHandle, State, Text,
};
use tokio::sync::Semaphore;
use tokio::time::sleep;

type Seen = Arc<common::Log<String>>;

async fn note(State(log): State<Seen>, Text(text): Text) -> Result<(), Failure> {
    log.note(text);
    Ok(())
}

/// Waits until the route does that.
async fn until(handle: &RouterHandle, route: &str, state: RouteState) {
    let reached = async {
        while handle.state(route) != Some(state) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the route gets there in time");
}

async fn ask(cx: &Context, method: &str, query: &str) -> PageResponse {
    let [page] = cx.board().pages().try_into().expect("one page");
    page.render(PageRequest::new(method, query, "")).await
}

#[tokio::test(start_paused = true)]
async fn a_paused_route_begins_nothing_and_goes_on_in_order() {
    let (_brokers, publisher, inbox) = orders().await;
    let (log, permits) = (log(), Arc::new(Semaphore::new(0)));
    let gate = Arc::clone(&permits);
    let router = Router::new()
        .route("ship", inbox, move |State(log): State<Seen>, Text(text): Text| {
            let gate = Arc::clone(&gate);
            async move {
                log.note(format!("begun {text}"));
                gate.acquire().await?.forget();
                log.note(format!("done {text}"));
                Ok(())
            }
        })
        .with_state(Arc::clone(&log))
        .concurrency(1);
    let handle = router.handle();
    let router = start(router);
    for i in 0..8 {
        publisher.publish(Message::new(i.to_string()).with_key("k")).await.unwrap();
    }
    assert_eq!(log.wait(1).await, ["begun 0"]);
    handle.pause("ship").unwrap();
    permits.add_permits(100);
    assert_eq!(log.wait(1).await, ["done 0"], "what has begun goes on");
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(log.rest(), [""; 0], "a paused route began a handler");
    assert_eq!(handle.state("ship"), Some(RouteState::Paused));
    handle.resume("ship").unwrap();
    let rest: Vec<_> = (1..8).flat_map(|i| [format!("begun {i}"), format!("done {i}")]).collect();
    assert_eq!(log.wait(14).await, rest);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_the_route_to_be_resumed() {
    let (_brokers, _, _) = orders().await;
    let (publisher, inbox, _outcomes) = common::partition::partition();
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): State<Seen>, Attempt(attempt): Attempt| async move {
            log.note(attempt.to_string());
            if attempt == 1 { Err(Failure::retry("busy")) } else { Ok(()) }
        })
        .with_state(Arc::clone(&log))
        .policy(Policy::default().backoff(Backoff::fixed(Duration::from_secs(5))));
    let handle = router.handle();
    let router = start(router);
    publisher.send(Message::new("x")).unwrap();
    assert_eq!(log.wait(1).await, ["1"]);
    handle.pause("ship").unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.rest(), [""; 0]);
    handle.resume("ship").unwrap();
    assert_eq!(log.wait(1).await, ["2"]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_may_be_paused_before_it_runs_and_does_not_hold_readiness_back() {
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new().route("ship", inbox, note).with_state(Arc::clone(&log));
    let handle = router.handle();
    handle.pause("ship").unwrap();
    let router = start(router);
    assert!(!router.cx.board().unready().is_empty(), "nothing has looked yet");
    publisher.publish(Message::new("a")).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(router.cx.board().unready().is_empty(), "{:?}", router.cx.board().unready());
    assert_eq!(log.rest(), [""; 0]);
    handle.resume("ship").unwrap();
    assert_eq!(log.wait(1).await, ["a"]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_back_what_a_paused_route_holds() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new().route("ship", inbox, note).with_state(Arc::clone(&log));
    let handle = router.handle();
    handle.pause("ship").unwrap();
    let router = start(router);
    publisher.publish(Message::new("a")).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    router.stop().await;
    assert_eq!(handle.state("ship"), Some(RouteState::Ended));
    let mut after = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    assert_eq!(text(&next(&mut after).await), "a");
    assert_eq!(log.rest(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lifts_the_pause_of_a_queue_that_would_be_lost() {
    let (_brokers, publisher, inbox) = volatile_orders().await;
    let log = log();
    let router = Router::new().route("ship", inbox, note).with_state(Arc::clone(&log));
    router.handle().pause("ship").unwrap();
    let mut router = start(router);
    publisher.publish(Message::new("a")).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    router.request_stop(PATIENCE);
    assert_eq!(log.wait(1).await, ["a"]);
    router.requests_finished();
    router.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_route_is_drained_and_the_others_run_on() {
    let (brokers, publisher, inbox) = orders().await;
    let audit = brokers.subscriber("memory://orders?group=audit").await.unwrap();
    let (log, permits) = (log(), Arc::new(Semaphore::new(0)));
    let gate = Arc::clone(&permits);
    let router = Router::new()
        .route("ship", inbox, move |State(log): State<Seen>, Text(text): Text| {
            let gate = Arc::clone(&gate);
            async move {
                log.note(format!("begun {text}"));
                gate.acquire().await?.forget();
                log.note(format!("done {text}"));
                Ok(())
            }
        })
        .with_state(Arc::clone(&log));
    let audited = common::log();
    let router = router
        .route("audit", audit, |State(log): State<Seen>, Text(text): Text| note(State(log), Text(text)))
        .with_state::<()>(Arc::clone(&audited))
        .concurrency(1);
    let handle = router.handle();
    let router = start(router);
    for text in ["a", "b"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    assert_eq!(log.wait(1).await, ["begun a"]);
    assert_eq!(audited.wait(2).await, ["a", "b"]);
    handle.drain("ship").unwrap();
    let mut other = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    assert_eq!(text(&next(&mut other).await), "b", "what no handler has begun goes back");
    assert_eq!(handle.state("ship"), Some(RouteState::Draining));
    permits.add_permits(100);
    assert_eq!(log.wait(1).await, ["done a"]);
    until(&handle, "ship", RouteState::Ended).await;
    assert_eq!(handle.state("audit"), Some(RouteState::Running));
    publisher.publish(Message::new("d")).await.unwrap();
    assert_eq!(audited.wait(1).await, ["d"]);
    let error = handle.resume("ship").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.to_string().contains("has ended, and that is for good"), "{error}");
    handle.drain("ship").unwrap();
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_handler_that_hangs_is_cut_off_at_its_timeout_and_its_message_goes_back() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): State<Seen>| async move {
            log.note("begun".to_owned());
            std::future::pending().await
        })
        .with_state(Arc::clone(&log));
    let handle = router.handle();
    let mut router = start(router);
    publisher.publish(Message::new("a")).await.unwrap();
    log.wait(1).await;
    handle.drain("ship").unwrap();
    router.ended().await.unwrap();
    let mut other = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let delivery = next(&mut other).await;
    assert_eq!((text(&delivery).as_str(), delivery.attempt()), ("a", Some(1)), "no attempt is used up");
    drop(delivery.ack());
    assert_empty(&mut other);
}

#[tokio::test]
async fn a_handle_names_the_routes_that_there_are() {
    let (brokers, _publisher, inbox) = orders().await;
    let audit = brokers.subscriber("memory://orders?group=audit").await.unwrap();
    let handler = |Text(_): Text| async { Ok(()) };
    let router = Router::<()>::new().route("ship", inbox, handler);
    let handle = router.handle();
    let router = router.route("audit", audit, handler);
    let error = handle.pause("shop").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("there is no route `shop`; there are: `ship`, `audit`"), "{error}");
    assert_eq!(handle.routes(), [("ship", RouteState::Running), ("audit", RouteState::Running)]);
    drop(router);
}

#[tokio::test(start_paused = true)]
async fn routes_are_switched_by_post_and_the_page_shows_it() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let ship = Router::new().route("ship", inbox, note).with_state(Arc::clone(&log));
    let handle = ship.handle();
    let router = start(ship);
    // Another router of the same process shares the page.
    let audit = brokers.subscriber("memory://orders?group=audit").await.unwrap();
    let other = Router::new().route("audit the lot", audit, |Text(_): Text| async { Ok(()) });
    let other_handle = other.handle();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(other.run(router.cx.clone()));

    let done = ask(&router.cx, "POST", "route=ship&do=pause").await;
    assert_eq!((done.status, done.body.as_str()), (200, "route ship is paused\n"));
    publisher.publish(Message::new("a")).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let page = ask(&router.cx, "GET", "").await.body;
    assert!(page.contains("route ship: memory://orders?group=ship, paused\n"), "{page}");
    assert_eq!(log.rest(), [""; 0]);
    let done = ask(&router.cx, "POST", "route=ship&do=resume").await;
    assert_eq!((done.status, done.body.as_str()), (200, "route ship runs\n"));
    assert_eq!(log.wait(1).await, ["a"]);
    let done = ask(&router.cx, "POST", "do=pause&route=audit%20the%20lot").await;
    assert_eq!((done.status, done.body.as_str()), (200, "route audit the lot is paused\n"));
    assert_eq!(other_handle.state("audit the lot"), Some(RouteState::Paused));
    let done = ask(&router.cx, "POST", "route=ship&do=drain").await;
    assert_eq!(done.status, 200, "{}", done.body);
    until(&handle, "ship", RouteState::Ended).await;
    let late = ask(&router.cx, "POST", "route=ship&do=resume").await;
    assert_eq!(late.status, 409, "{}", late.body);
    tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_was_drained_stays_on_the_page_and_readiness_and_metrics_tell_of_each_state() {
    let (_brokers, _publisher, inbox) = orders().await;
    let router = Router::new().route("told of", inbox, |Text(_): Text| async { Ok(()) });
    let handle = router.handle();
    let mut router = start(router);
    let [check] = router.cx.board().checks().try_into().expect("one check");
    assert!(!check.is_required());
    let seen = || {
        let text = mainspring_observe::metrics::text(&[mainspring_observe::metrics::registry()]);
        let ours = text.lines().filter_map(|line| line.strip_prefix(r#"pubsub_route_state{route="told of",state=""#));
        ours.filter_map(|line| line.strip_suffix(r#""} 1"#)).map(str::to_owned).collect::<Vec<_>>()
    };
    sleep(Duration::from_secs(1)).await;
    assert_eq!(seen(), ["running"]);
    check.run().await.unwrap();
    handle.pause("told of").unwrap();
    assert_eq!(seen(), ["paused"]);
    assert_eq!(check.run().await.unwrap_err().to_string(), "route `told of` is paused");
    handle.drain("told of").unwrap();
    assert_eq!(seen(), ["draining"]);
    router.ended().await.unwrap();
    assert_eq!(seen(), ["ended"]);
    assert_eq!(check.run().await.unwrap_err().to_string(), "route `told of` has ended");
    let page = ask(&router.cx, "GET", "").await.body;
    let told = "route told of: memory://orders?group=ship, ended (drained); start the process anew\n";
    assert_eq!(page, told);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_shown_with_its_position_and_the_beginning_of_its_key() {
    let (publisher, inbox, _outcomes) = common::partition::partition();
    let log = log();
    let hang = |State(log): State<Seen>, Text(text): Text| async move {
        log.note(text);
        std::future::pending().await
    };
    let router = start(Router::new().route("ship", inbox, hang).with_state(Arc::clone(&log)).concurrency(1));
    // Another router of the same process shares the page.
    let (_other, inbox, _outcomes) = common::partition::partition();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Router::new().route("audit", inbox, |Text(_): Text| async { Ok(()) }).run(router.cx.clone()));
    let (odd, long) = ("red\u{1b}[31m\n\u{202e}\"", format!("{}b", "ä".repeat(64)));
    for key in [odd, &long] {
        publisher.send(Message::new("x").with_key(key)).unwrap();
    }
    log.wait(1).await;
    sleep(Duration::from_secs(1)).await;
    let page = ask(&router.cx, "GET", "").await.body;
    assert!(page.contains(", position 0/0, key \"red\\u{1b}[31m\\n\\u{202e}\\\"\"\n"), "{page}");
    assert!(page.contains(&format!(", position 0/1, key \"{}\"…\n", "ä".repeat(64))), "{page}");
    let [shown] = router.cx.board().pages().try_into().expect("one page");
    let asked = PageRequest::new("GET", "", "").with_accept("text/html, application/json;q=0.9");
    for answer in [ask(&router.cx, "GET", "format=json").await, shown.render(asked).await] {
        assert_eq!(answer.content_type, "application/json");
        let page: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let [ship, audit] = page["routes"].as_array().unwrap().as_slice() else { panic!("{page}") };
        assert_eq!((&ship["route"], &audit["route"]), (&"ship".into(), &"audit".into()));
        assert_eq!((&ship["state"], &ship["source"]), (&"running".into(), &"partition://log".into()));
        assert_eq!((&ship["held"]["running"], &ship["held"]["ready"]), (&1.into(), &1.into()));
        let [first, second] = ship["held"]["messages"].as_array().unwrap().as_slice() else { panic!("{page}") };
        assert_eq!((&first["partition"], &first["offset"], &first["lane"]), (&0.into(), &0.into(), &0.into()));
        assert_eq!((&first["key"], &second["key"]), (&odd.into(), &format!("{}…", "ä".repeat(64)).into()));
    }
    router.abort().await;
    tasks.shutdown().await;
}

#[tokio::test]
async fn orders_that_make_no_sense_are_refused_with_what_would() {
    let (_brokers, _publisher, inbox) = orders().await;
    let router = Router::new().route("ship", inbox, |Text(_): Text| async { Ok(()) });
    let handle = router.handle();
    let router = start(router);
    for (method, query, status, what) in [
        ("POST", "", 400, "`route` is missing"),
        ("POST", "route=ship", 400, "`do` is missing"),
        ("POST", "route=ship&do=stop", 400, "`do=stop` is not known"),
        ("POST", "route=ship&do=pause&force=1", 400, "`force` is not known"),
        ("POST", "route=ship&do=pause&do=resume", 400, "`do` is given twice"),
        ("POST", "route=%zz&do=pause", 400, "a percent-escape in `route` is broken"),
        ("POST", "route=shop&do=pause", 404, "there is no route `shop`; there are: `ship`"),
        ("GET", "route=ship&do=pause", 400, "reading this page takes no query"),
        ("DELETE", "route=ship", 405, "`DELETE` does nothing here"),
    ] {
        let answer = ask(&router.cx, method, query).await;
        assert_eq!(answer.status, status, "{method} {query}: {}", answer.body);
        assert!(answer.body.contains(what), "{method} {query}: {}", answer.body);
    }
    assert_eq!(handle.state("ship"), Some(RouteState::Running), "nothing was done");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_page_tells_age_lease_and_why_each_message_waits() {
    let visibility_timeout = mainspring_config::Duration::from_secs(100);
    let config = mainspring_pubsub::memory::Config { visibility_timeout, ..Default::default() };
    let broker = mainspring_pubsub::memory::Broker::new(config);
    let log = log();
    let router = Router::new()
        .route("ship", broker.subscriber("orders", "ship"), |State(log): State<Seen>| async move {
            log.note("begun".to_owned());
            std::future::pending().await
        })
        .layer(tower::limit::ConcurrencyLimitLayer::new(1))
        .with_state(Arc::clone(&log))
        .concurrency(2);
    let handle = router.handle();
    let router = start(router);
    let publisher = broker.publisher("orders");
    for _ in 0..3 {
        publisher.publish(Message::new("x")).await.unwrap();
    }
    log.wait(1).await;
    sleep(Duration::from_secs(20)).await;
    let page = ask(&router.cx, "GET", "").await.body;
    assert!(page.contains("lane 0 running for 20.0s, age 20.0s, lease left 80.0s"), "{page}");
    assert!(page.contains("lane 1 held back by a layer for 20.0s, age 20.0s, lease left 80.0s"), "{page}");
    assert!(page.contains("attempt 1 waits for a lane, age 20.0s, lease left 80.0s"), "{page}");
    handle.pause("ship").unwrap();
    let page = ask(&router.cx, "GET", "").await.body;
    assert!(page.contains("attempt 1 waits for the route to be resumed, age 20.0s"), "{page}");
    router.abort().await;
}

#[tokio::test]
async fn the_page_tells_how_far_each_partition_is() {
    let (_brokers, _publisher, inbox) = orders().await;
    let inbox = common::lending::Lending::with_progress(inbox, |partition| {
        let mut progress = PartitionProgress::default();
        progress.partition = partition;
        if partition == 1 {
            (progress.committed, progress.low, progress.high) = (Some(40), Some(41), Some(90));
            progress.gaps = (0..10).map(|n| (41 + n * 4, 41 + n * 4 + n % 2)).collect();
            progress.waits = true;
        }
        progress
    });
    let router = start(Router::new().route("ship", inbox, |Text(_): Text| async { Ok(()) }));
    tokio::task::yield_now().await;
    let page = ask(&router.cx, "GET", "").await.body;
    assert!(page.contains("  partition 0: committed -, low -, high -, nothing open\n"), "{page}");
    let open = "open 41, 45-46, 49, 53-54, 57, 61-62, 65, 69-70, …; waits: nothing more is received until 41 is done";
    assert!(page.contains(&format!("  partition 1: committed 40, low 41, high 90, {open}\n")), "{page}");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_layer_is_not_the_handlers_time_and_ends_with_the_stop() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): State<Seen>, Text(text): Text| async move {
            sleep(Duration::from_secs(8)).await;
            log.note(text);
            Ok(())
        })
        .layer(tower::limit::ConcurrencyLimitLayer::new(1))
        .with_state(Arc::clone(&log))
        .policy(Policy::default().attempts(1).timeout(Duration::from_secs(10)));
    let mut router = start(router);
    for text in ["a", "b", "c", "d"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    assert_eq!(log.wait(3).await, ["a", "b", "c"], "three times eight seconds of waiting are no timeout");
    for text in ["e", "f"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    router.request_stop(PATIENCE);
    router.ended().await.unwrap();
    assert_eq!(log.rest(), ["d"], "what a layer held back is not begun while stopping");
    let mut after = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    for text in ["e", "f"] {
        let delivery = next(&mut after).await;
        assert_eq!((common::text(&delivery).as_str(), delivery.attempt()), (text, Some(1)));
        drop(delivery.ack());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_holds_does_not_begin_while_the_route_is_paused() {
    use mainspring_pubsub::layers::Throttle;

    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, note)
        .with_state(Arc::clone(&log))
        .layer(Throttle::new(1, Duration::from_secs(10)));
    let handle = router.handle();
    let router = start(router);
    for text in ["a", "b", "c", "d"] {
        publisher.publish(Message::new(text)).await.unwrap();
    }
    assert_eq!(log.wait(1).await, ["a"]);
    handle.pause("ship").unwrap();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(log.rest(), [""; 0], "a throttle let a message into a paused route");
    handle.resume("ship").unwrap();
    assert_eq!(log.wait(2).await, ["b", "c"]);
    handle.pause("ship").unwrap();
    sleep(Duration::from_secs(60)).await;
    router.stop().await;
    assert_eq!(log.rest(), [""; 0]);
    let mut after = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let delivery = next(&mut after).await;
    assert_eq!((text(&delivery).as_str(), delivery.attempt()), ("d", Some(1)));
}
