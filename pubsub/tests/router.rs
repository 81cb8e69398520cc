//! What the router does with messages whose handlers succeed or fail.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::scripted::Scripted;
use common::{PATIENCE, assert_empty, body, log, next, orders, start};
use mainspring_config::ByteSize;
use mainspring_pubsub::{
    Attempt, Attributes, Backoff, Bytes, ErrorKind, Failure, Json, Key, Message, Policy, Request, Router, State, Text,
};
use tokio::time::{Instant, sleep};

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Order {
    id: String,
    quantity: u32,
}

fn order(id: &str, quantity: u32) -> Message {
    Message::json(&Order { id: id.to_owned(), quantity }).unwrap().with_key(id)
}

/// Retries at once, so that tests need not wait.
fn eager() -> Policy {
    Policy::default().backoff(Backoff::fixed(Duration::ZERO))
}

#[tokio::test]
async fn a_handler_gets_what_it_asks_for() {
    #[expect(clippy::too_many_arguments, reason = "all that there is, and as many as there may be")]
    async fn ship(
        State(log): State<Arc<common::Log<String>>>,
        Json(order): Json<Order>,
        Key(key): Key,
        Attributes(attributes): Attributes,
        Attempt(attempt): Attempt,
        Text(text): Text,
        bytes: Bytes,
        message: Message,
    ) -> Result<(), Failure> {
        assert_eq!(text.as_bytes(), bytes);
        assert_eq!(message.body, bytes);
        log.note(format!("{} {key:?} {:?} {attempt}", order.id, attributes.get("to")));
        Ok(())
    }
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = start(Router::new().route("ship", inbox, ship).with_state(Arc::clone(&log)));
    publisher.publish(order("A1", 2).with_attribute("to", "Kyoto")).await.unwrap();
    assert_eq!(log.wait(1).await, [r#"A1 Some("A1") Some("Kyoto") 1"#]);
    router.stop().await;
}

#[tokio::test]
async fn a_handled_message_is_acked_once() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let seen = Arc::clone(&log);
    let router = start(Router::new().route("ship", inbox, move |Text(text): Text| {
        let seen = Arc::clone(&seen);
        async move {
            seen.note(text);
            Ok(())
        }
    }));
    publisher.publish(Message::new("a")).await.unwrap();
    publisher.publish(Message::new("b")).await.unwrap();
    let mut handled = log.wait(2).await;
    handled.sort();
    assert_eq!(handled, ["a", "b"]);
    let cx = router.cx.clone();
    router.stop().await;
    assert_eq!(cx.board().tallies(), [("deliveries_returned", 0), ("deliveries_settled", 2)]);
    assert_empty(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap());
}

#[tokio::test]
async fn a_question_mark_and_a_panic_both_mean_try_again() {
    async fn flaky(State(log): State<Arc<common::Log<u32>>>, Attempt(attempt): Attempt) -> Result<(), Failure> {
        log.note(attempt);
        match attempt {
            1 => Err("not yet")?,
            2 => panic!("not yet either"),
            3 => Err(Failure::retry("still not").after(Duration::from_millis(1))),
            _ => Ok(()),
        }
    }
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new().route("ship", inbox, flaky).with_state(Arc::clone(&log)).policy(eager());
    let router = start(router);
    publisher.publish(Message::new("x")).await.unwrap();
    assert_eq!(log.wait(4).await, [1, 2, 3, 4]);
    router.stop().await;
    assert_eq!(log.rest(), [0_u32; 0]);
}

#[tokio::test]
async fn a_rejected_message_becomes_a_dead_letter_as_it_came() {
    async fn ship(Json(order): Json<Order>) -> Result<(), Failure> {
        if order.quantity > 1000 { Err(Failure::reject("more than we have")) } else { Ok(()) }
    }
    let (brokers, publisher, inbox) = orders().await;
    let mut letters = brokers.subscriber("memory://rejects").await.unwrap();
    let told = log();
    let telling = Arc::clone(&told);
    let router = Router::new()
        .route("ship", inbox, ship)
        .dead_letter(brokers.publisher("memory://rejects").await.unwrap())
        .on_dead_letter(move |letter| telling.note((body(letter.message), letter.reason.to_owned(), letter.attempts)));
    let router = start(router);
    let sent = order("A1", 2000).with_attribute("to", "Kyoto");
    publisher.publish(sent.clone()).await.unwrap();
    publisher.publish(order("A2", 1)).await.unwrap();

    let letter = next(&mut letters).await;
    let message = letter.message();
    assert_eq!((&message.id, &message.key, &message.body), (&sent.id, &sent.key, &sent.body));
    let attribute = |name: &str| message.attributes.get(name).map(String::as_str);
    assert_eq!(attribute("to"), Some("Kyoto"));
    assert_eq!(attribute("dead-letter-reason"), Some("more than we have"));
    assert_eq!(attribute("dead-letter-attempts"), Some("1"));
    assert_eq!(attribute("dead-letter-position"), Some("0/0"));
    assert_eq!(attribute("dead-letter-source"), Some("memory://orders"));
    assert_eq!(attribute("dead-letter-route"), Some("ship"));
    assert_eq!(told.wait(1).await, [(body(&sent), "more than we have".to_owned(), 1)]);

    router.stop().await;
    assert_empty(&mut letters);
    assert_empty(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap());
}

#[tokio::test]
async fn a_message_that_always_fails_becomes_a_dead_letter_after_its_attempts() {
    let (brokers, publisher, inbox) = orders().await;
    let mut letters = brokers.subscriber("memory://rejects").await.unwrap();
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): State<Arc<common::Log<u32>>>, Attempt(attempt): Attempt| async move {
            log.note(attempt);
            Err(Failure::retry("the house is full"))
        })
        .with_state(Arc::clone(&log))
        .policy(eager().attempts(3))
        .dead_letter(brokers.publisher("memory://rejects").await.unwrap());
    let router = start(router);
    publisher.publish(Message::new("x")).await.unwrap();
    let letter = next(&mut letters).await;
    assert_eq!(letter.message().attributes["dead-letter-attempts"], "3");
    assert_eq!(letter.message().attributes["dead-letter-reason"], "the house is full");
    assert_eq!(log.rest(), [1, 2, 3]);
    router.stop().await;
}

#[tokio::test]
async fn without_a_dead_letter_publisher_the_broker_keeps_what_is_rejected() {
    let (brokers, publisher, inbox) = orders().await;
    let router =
        start(Router::new().route("ship", inbox, |Json(_order): Json<Order>| async { Err(Failure::reject("never")) }));
    let undecodable = &b"{\"id\": \"A1\", \"quantity\": \xff}"[..];
    publisher.publish(Message::new(undecodable)).await.unwrap();
    let mut letters = brokers.subscriber("memory://orders.dead").await.unwrap();
    let letter = next(&mut letters).await;
    assert_eq!(letter.message().body, undecodable);
    let reason = &letter.message().attributes["dead-letter-reason"];
    assert!(reason.contains("field `quantity`"), "{reason}");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_dead_letters_cannot_be_published() {
    use mainspring_pubsub::memory::{Broker, Config};

    let (_brokers, publisher, inbox) = orders().await;
    // Nothing but the smallest message fits there, so that there is no letter until the handler accepts the message.
    let small = Broker::new(Config { max_message_bytes: ByteSize::bytes(5), ..Config::default() });
    let message = Message::new("longer");
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): State<Arc<common::Log<u32>>>, Attempt(attempt): Attempt| async move {
            log.note(attempt);
            if attempt < 3 { Err(Failure::reject("no")) } else { Ok(()) }
        })
        .with_state(Arc::clone(&log))
        .policy(Policy::default().backoff(Backoff::fixed(Duration::from_secs(5))))
        .dead_letter(small.publisher("rejects"));
    let router = start(router);
    publisher.publish(message).await.unwrap();
    assert_eq!(log.wait(3).await, [1, 2, 3]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_a_dead_letter_that_the_broker_did_not_take() {
    use mainspring_pubsub::memory::{Broker, Config};

    let broker = Broker::new(Config { capacity: 1, ..Config::default() });
    let mut letters = broker.subscriber("orders.dead", "watch");
    let told = log();
    let telling = Arc::clone(&told);
    let router = Router::new()
        .route("ship", broker.subscriber("orders", "ship"), |Text(_): Text| async { Err(Failure::reject("no")) })
        .on_dead_letter(move |letter| telling.note(body(letter.message)));
    let router = start(router);
    broker.publisher("orders").publish(Message::new("a")).await.unwrap();
    assert_eq!(told.wait(1).await, ["a"]);
    broker.publisher("orders").publish(Message::new("b")).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(told.rest(), [""; 0], "there was no room");
    next(&mut letters).await.ack().await.unwrap();
    assert_eq!(told.wait(1).await, ["b"]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retries_come_at_exact_instants_whoever_makes_them() {
    for router_retries in [false, true] {
        let (_brokers, publisher, inbox) = orders().await;
        let inbox = if router_retries { Scripted::new(inbox, []).into() } else { inbox };
        let log = log();
        let started = Instant::now();
        let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(3)).without_jitter();
        let handler = move |State(log): State<Arc<common::Log<u128>>>, Attempt(attempt): Attempt| async move {
            log.note(started.elapsed().as_millis());
            match attempt {
                3 => Err(Failure::retry("busy").after(Duration::from_secs(60))),
                5 => Ok(()),
                _ => Err(Failure::retry("busy")),
            }
        };
        let router = Router::new().route("ship", inbox, handler).with_state(Arc::clone(&log));
        let router = start(router.policy(Policy::default().attempts(5).backoff(backoff)));
        publisher.publish(Message::new("x")).await.unwrap();
        sleep(Duration::from_secs(100)).await;
        assert_eq!(log.rest(), [0, 1_000, 3_000, 63_000, 66_000], "by the router: {router_retries}");
        router.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_dropped_and_tried_again() {
    struct Dropped(Arc<common::Log<&'static str>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.note("dropped");
        }
    }
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let started = Instant::now();
    let router = Router::new()
        .route(
            "ship",
            inbox,
            |State(log): State<Arc<common::Log<&'static str>>>, Attempt(attempt): Attempt| async move {
                let _dropped = Dropped(Arc::clone(&log));
                if attempt == 1 {
                    std::future::pending::<()>().await;
                }
                log.note("done");
                Ok(())
            },
        )
        .with_state(Arc::clone(&log))
        .policy(eager().timeout(Duration::from_secs(7)));
    let router = start(router);
    publisher.publish(Message::new("x")).await.unwrap();
    assert_eq!(log.wait(3).await, ["dropped", "done", "dropped"]);
    assert_eq!(started.elapsed().as_secs(), 7);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stuck_message_holds_up_neither_other_keys_nor_other_lanes() {
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): State<Arc<common::Log<String>>>, Text(text): Text| async move {
            if text == "stuck" {
                std::future::pending::<()>().await;
            }
            log.note(text);
            Ok(())
        })
        .with_state(Arc::clone(&log))
        .concurrency(2);
    let router = start(router);
    publisher.publish(Message::new("stuck").with_key("k")).await.unwrap();
    for i in 0..100 {
        publisher.publish(Message::new(format!("behind {i}")).with_key("k")).await.unwrap();
    }
    for i in 0..100 {
        publisher.publish(Message::new(format!("keyed {i}")).with_key(format!("k{i}"))).await.unwrap();
        publisher.publish(Message::new(format!("unkeyed {i}"))).await.unwrap();
    }
    let handled = log.wait(200).await;
    assert!(handled.iter().all(|text| !text.starts_with("behind")), "order per key: {handled:?}");
    router.request_stop(Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn towers_own_services_and_layers_work_on_messages() {
    let (brokers, publisher, inbox) = orders().await;
    let other = brokers.subscriber("memory://orders?group=audit").await.unwrap();
    let log = log();
    let (handled, served) = (Arc::clone(&log), Arc::clone(&log));
    let router = Router::new()
        .route("ship", inbox, move |Attempt(attempt): Attempt| {
            handled.note(format!("handled {attempt}"));
            async move {
                if attempt == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        })
        .route_service(
            "audit",
            other,
            tower::service_fn(move |request: Request| {
                served.note(format!("served {} {}", request.route(), request.attempt()));
                let result = match request.attempt() {
                    1 => Err(std::io::Error::other("disk full")),
                    _ => Ok(()),
                };
                async move { result }
            }),
        )
        .layer(tower::limit::ConcurrencyLimitLayer::new(1))
        .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(3)))
        .policy(eager());
    let router = start(router);
    publisher.publish(Message::new("x")).await.unwrap();
    let mut all = log.wait(4).await;
    all.sort();
    assert_eq!(all, ["handled 1", "handled 2", "served audit 1", "served audit 2"]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_extended_for_as_long_as_the_handler_runs() {
    let visibility_timeout = mainspring_config::Duration::from_secs(10);
    let config = mainspring_pubsub::memory::Config { visibility_timeout, ..Default::default() };
    let broker = mainspring_pubsub::memory::Broker::new(config);
    let log = log();
    let router = Router::new()
        .route(
            "ship",
            broker.subscriber("orders", "ship"),
            |State(log): State<Arc<common::Log<&'static str>>>| async move {
                log.note("begun");
                sleep(Duration::from_secs(100)).await;
                log.note("done");
                Ok(())
            },
        )
        .with_state(Arc::clone(&log))
        .policy(Policy::default().timeout(Duration::from_secs(200)));
    let router = start(router);
    let mut other = broker.subscriber("orders", "ship");
    broker.publisher("orders").publish(Message::new("x")).await.unwrap();
    assert_eq!(log.wait(1).await, ["begun"]);
    assert!(tokio::time::timeout(Duration::from_secs(99), other.next()).await.is_err(), "delivered twice");
    assert_eq!(log.wait(1).await, ["done"]);
    assert!(tokio::time::timeout(Duration::from_secs(99), other.next()).await.is_err(), "not acked");
    router.stop().await;
}

#[tokio::test]
async fn a_handler_continues_the_trace_of_its_message() {
    use mainspring_observe::correlation::{self, Correlation};
    use mainspring_observe::trace::TraceContext;

    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): State<Arc<common::Log<_>>>, Attributes(attributes): Attributes| async move {
            tokio::task::yield_now().await;
            log.note((correlation::current().trace, attributes.get("traceparent").cloned()));
            Ok(())
        })
        .with_state(Arc::clone(&log));
    let router = start(router);
    let trace = TraceContext::new();
    let scope = Correlation { trace: Some(trace), request_id: None };
    correlation::scope(scope, publisher.publish(Message::new("x"))).await.unwrap();
    let [(seen, sent)] = log.wait(1).await.try_into().unwrap();
    let seen: TraceContext = seen.expect("a trace");
    assert_eq!(seen.trace_id(), trace.trace_id());
    assert_ne!(seen.span_id(), trace.span_id());
    assert_eq!(sent.unwrap().as_bytes(), trace.traceparent());
    // Without one, a handler has a trace of its own.
    publisher.publish(Message::new("y")).await.unwrap();
    let [(own, none)] = log.wait(1).await.try_into().unwrap();
    assert!(own.is_some_and(|own| own.trace_id() != trace.trace_id()));
    assert_eq!(none, None);
    router.stop().await;
}

#[tokio::test]
async fn a_router_that_cannot_work_does_not_start() {
    let (brokers, _publisher, inbox) = orders().await;
    let again = brokers.subscriber("memory://orders").await.unwrap();
    let handler = |Text(_): Text| async { Ok(()) };
    let twice = Router::new().route("ship", inbox, handler).route("ship", again, handler);
    let no_lane = Router::new().route("ship", brokers.subscriber("memory://o").await.unwrap(), handler).concurrency(0);
    for (router, what) in [
        (twice, "two routes are called `ship`"),
        (no_lane, "no message would ever be handled"),
        (Router::new(), "the router has no route"),
    ] {
        let error = start(router).ended().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.is::<mainspring_config::Error>() && source.to_string().contains(what), "{source}");
    }
}

#[tokio::test]
async fn the_debug_page_shows_what_is_in_flight() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new()
        .route("ship", inbox, |State(log): State<Arc<common::Log<()>>>| async move {
            log.note(());
            std::future::pending().await
        })
        .with_state(Arc::clone(&log));
    let (trigger, cx) = mainspring_daemon::Context::test("ship");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(router.run(cx.clone()));
    // Another router of the same process shares the page.
    let audit = brokers.subscriber("memory://orders?group=audit").await.unwrap();
    tasks.spawn(Router::new().route("audit", audit, |Text(_): Text| async { Ok(()) }).run(cx.clone()));
    let receipt = publisher.publish(Message::new("secret")).await.unwrap();
    log.wait(1).await;
    let [page] = cx.board().pages().try_into().unwrap();
    assert_eq!(page.path, "/debug/pubsub");
    let shown = page.render(Default::default()).await.body;
    assert!(shown.contains("route ship: memory://orders?group=ship"), "{shown}");
    assert!(shown.contains("1 running, 0 ready"), "{shown}");
    assert!(shown.contains(&format!("{} attempt 1 lane 0 running for", receipt.id)), "{shown}");
    assert!(shown.contains("route audit: memory://orders?group=audit"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    trigger.request(Instant::now());
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_is_sent_and_handled_is_counted() {
    let brokers = common::brokers();
    let publisher = brokers.publisher("memory://counted").await.unwrap();
    let inbox = brokers.subscriber("memory://counted?group=tally").await.unwrap();
    let router = Router::new()
        .route("counted", inbox, |Attempt(attempt): Attempt| async move {
            if attempt == 1 { Err(Failure::retry("again")) } else { Ok(()) }
        })
        .policy(eager());
    let router = start(router);
    for _ in 0..3 {
        publisher.publish(Message::new("x")).await.unwrap();
    }
    publisher.publish(Message::new(vec![0; 2 << 20])).await.unwrap_err();
    let settled = router.cx.tally("deliveries_settled");
    tokio::time::timeout(PATIENCE, async {
        while settled.get() < 6 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    router.stop().await;
    let text = mainspring_observe::metrics::text(&[mainspring_observe::metrics::registry()]);
    let to = r#"messaging_system="memory",messaging_destination_name="counted""#;
    for line in [
        format!(r#"messaging_client_sent_messages_total{{{to},error_type=""}} 3"#),
        format!(r#"messaging_client_sent_messages_total{{{to},error_type="too_large"}} 1"#),
        format!(r#"messaging_client_consumed_messages_total{{{to},messaging_consumer_group_name="tally"}} 6"#),
        format!(
            r#"messaging_process_duration_seconds_count{{{to},messaging_consumer_group_name="tally",error_type="error"}} 3"#
        ),
        r#"pubsub_inflight{route="counted"} 0"#.to_owned(),
        r#"pubsub_outcome_total{route="counted",outcome="acked"} 3"#.to_owned(),
        r#"pubsub_outcome_total{route="counted",outcome="retried"} 3"#.to_owned(),
        r#"pubsub_redelivered_total{route="counted"} 3"#.to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}
