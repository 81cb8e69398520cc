//! What a router makes of the broker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainspring_observe::correlation;
use mainspring_observe::trace::TraceContext;
use mainspring_pubsub::{Attempt, Backoff, Failure, Message, Policy, Router};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, Topic, same, text, within};
use crate::history::{Journal, Order, Rules};

table! {
    the_router_handles_everything_once[] 4 "Every message is handled, acked after its handler's end, and not handled twice.";
    the_router_retries_what_fails[] 5 "Handlers that fail (the first two, and every fifth) get their messages again until they succeed.";
    the_router_survives_panics_and_hangs[] 5 "A handler that panics or takes too long gets its message again; the others go on.";
    the_router_keeps_keys_in_order[] 5 "Messages of a key are handled one at a time, in order, also when some fail.";
    one_slow_message_holds_up_no_other[] 4 "While one handler hangs, all other messages are handled.";
    the_router_takes_on_no_more_than_it_may[] 4 "Handlers that stall keep their messages, no more than allowed begin, and all end well.";
    handlers_of_two_topics_do_not_disturb_each_other[Topics] 4 "One router serves two topics.";
    traces_go_on_in_handlers[] 3 "A handler runs in the trace of its message.";
    retries_are_exact_on_a_paused_clock[PausedClock NackDelay] 3 "On tokio's clock, retries come exactly when the policy says.";
}

async fn the_router_handles_everything_once(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let journal = Journal::new();
    let (seen, mut log) = mpsc::unbounded_channel();
    let handler = ours(&topic, &journal, move |message| {
        let seen = seen.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..3))).await;
            seen.send(message).ok();
            Ok(())
        }
    });
    let inbox = topic.watched(&journal, "router").await?;
    let router = topic.start(Router::new().route("all", inbox, handler).concurrency(32));
    let (publisher, producer) = (topic.publisher().await?, topic.producer(&journal));
    let count = stage.size(300, 5000);
    let messages = (0..count).map(|n| topic.message(n.to_string()).with_key(format!("k{}", n % 50)));
    for result in producer.publish_all(&publisher, messages.collect()).await {
        result?;
    }
    drain(&topic, &mut log, count).await?;
    router.stop().await;
    clean(&journal, Rules::default().order(Order::FirstDelivery))
}

async fn the_router_retries_what_fails(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let journal = Journal::new();
    let (seen, mut log) = mpsc::unbounded_channel();
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = ours(&topic, &journal, move |message| {
        let (seen, call) = (seen.clone(), calls.fetch_add(1, Ordering::Relaxed));
        async move {
            if call < 2 || call % 5 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Err("injected".into());
            }
            seen.send(message).ok();
            Ok(())
        }
    });
    let policy = Policy::default().attempts(30).backoff(Backoff::fixed(Duration::from_millis(20)));
    let inbox = topic.subscriber("g").await?;
    let router = topic.start(Router::new().route("retry", inbox, handler).policy(policy));
    let sent = topic.send_numbers(&topic.publisher().await?, 50).await?;
    same(&sent, &drain(&topic, &mut log, 50).await?)?;
    router.stop().await;
    topic.inbox("g").await?.is_quiet("every message was handled").await
}

async fn the_router_survives_panics_and_hangs(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (seen, mut log) = mpsc::unbounded_channel();
    let own = topic.clone();
    let handler = move |message: Message, Attempt(attempt): Attempt| {
        let (seen, own) = (seen.clone(), own.owns(&message));
        async move {
            match (own, text(&message).as_str(), attempt) {
                (false, ..) => return Ok(()),
                (_, "panics", 1) => panics(),
                (_, "hangs", 1) => std::future::pending().await,
                _ => {}
            }
            seen.send(message).ok();
            Ok(())
        }
    };
    let policy =
        Policy::default().timeout(Duration::from_millis(300)).backoff(Backoff::fixed(Duration::from_millis(20)));
    let router = Router::new().route("panic", topic.subscriber("g").await?, handler).policy(policy);
    let router = topic.start(router);
    let publisher = topic.publisher().await?;
    let sent: Vec<_> = ["panics", "hangs", "good", "better"].into_iter().map(|body| topic.message(body)).collect();
    topic.send_all(&publisher, sent.clone()).await?;
    same(&sent, &drain(&topic, &mut log, 4).await?)?;
    router.stop().await;
    Ok(())
}

async fn the_router_keeps_keys_in_order(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (seen, mut log) = mpsc::unbounded_channel();
    let own = topic.clone();
    let busy: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let handler = move |message: Message, Attempt(attempt): Attempt| {
        let (seen, own, busy) = (seen.clone(), own.owns(&message), Arc::clone(&busy));
        async move {
            let Some(key) = message.key.clone().filter(|_| own) else { return Ok(()) };
            *busy.lock().map_err(|_| "a handler panicked")?.entry(key.clone()).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..4))).await;
            let at_once = busy.lock().map_err(|_| "a handler panicked")?.insert(key, 0).unwrap_or_default();
            if attempt == 1 && text(&message).ends_with('7') {
                return Err("injected".into());
            }
            seen.send((message, at_once)).ok();
            Ok::<_, Failure>(())
        }
    };
    let policy = Policy::default().backoff(Backoff::fixed(Duration::from_millis(10)));
    let router = Router::new().route("keys", topic.subscriber("g").await?, handler).concurrency(16).policy(policy);
    let router = topic.start(router);
    let (publisher, count) = (topic.publisher().await?, stage.size(200, 2000));
    for n in 0..count {
        topic.send(&publisher, topic.message(n.to_string()).with_key(format!("k{}", n % 20))).await?;
    }
    let mut last = BTreeMap::<_, i64>::new();
    for (message, at_once) in drain(&topic, &mut log, count).await? {
        ensure!(at_once == 1, "{at_once} messages of key {:?} were handled at once", message.key);
        let n = text(&message).parse().unwrap_or(-1);
        let before = last.insert(message.key.clone(), n).unwrap_or(-1);
        ensure!(before < n, "{n} was handled after {before}, of key {:?}", message.key);
    }
    router.stop().await;
    Ok(())
}

async fn one_slow_message_holds_up_no_other(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let journal = Journal::new();
    let (seen, mut log) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let handler = ours(&topic, &journal, move |message| {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        async move {
            if text(&message) == "0" {
                gate.acquire().await?.forget();
            }
            seen.send(message).ok();
            Ok(())
        }
    });
    let router = Router::new().route("slow", topic.subscriber("g").await?, handler).concurrency(4).prefetch(4);
    let router = topic.start(router);
    let publisher = topic.publisher().await?;
    let messages: Vec<_> = (0..100).map(|n| topic.message(n.to_string()).with_key(format!("k{n}"))).collect();
    topic.send_all(&publisher, messages).await?;
    let others = drain(&topic, &mut log, 99).await?;
    ensure!(others.iter().all(|message| text(message) != "0"), "the slow one was not slow");
    open.add_permits(1);
    drain(&topic, &mut log, 1).await?;
    router.stop().await;
    Ok(())
}

async fn the_router_takes_on_no_more_than_it_may(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let journal = Journal::new();
    let (began, mut log) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let handler = ours(&topic, &journal, move |message| {
        let (began, gate) = (began.clone(), Arc::clone(&gate));
        async move {
            began.send(message).ok();
            drop(gate.acquire().await?);
            Ok(())
        }
    });
    let inbox = topic.watched(&journal, "router").await?;
    let router = topic.start(Router::new().route("stalled", inbox, handler).concurrency(4).prefetch(6));
    let (publisher, producer) = (topic.publisher().await?, topic.producer(&journal));
    let messages = (0..100).map(|n| topic.message(n.to_string()));
    for result in producer.publish_all(&publisher, messages.collect()).await {
        result?;
    }
    let mut handled = drain(&topic, &mut log, 4).await?;
    tokio::time::sleep(topic.quiet).await;
    ensure!(log.is_empty(), "{} handlers run, and 4 may", 4 + log.len());
    let out = journal.check(&Rules::default().order(Order::None).unfinished()).delivered;
    ensure!(out <= 10, "the router holds {out} messages, and 4 running with 6 waiting are allowed");
    open.add_permits(1000);
    handled.extend(drain(&topic, &mut log, 96).await?);
    router.stop().await;
    clean(&journal, Rules::default().order(Order::None))
}

async fn handlers_of_two_topics_do_not_disturb_each_other(stage: Stage) -> Result<(), Fault> {
    let (one, two) = (stage.topic().await?, stage.topic().await?);
    let (seen, mut log) = mpsc::unbounded_channel();
    let mut router = Router::new();
    for (name, topic) in [("one", &one), ("two", &two)] {
        let seen = seen.clone();
        let handler = move |message: Message| {
            let seen = seen.clone();
            async move {
                seen.send((name, message)).ok();
                Ok(())
            }
        };
        router = router.route(name, topic.subscriber("g").await?, handler);
    }
    let router = one.start(router);
    one.send_numbers(&one.publisher().await?, 50).await?;
    two.send_numbers(&two.publisher().await?, 50).await?;
    for (name, message) in drain(&one, &mut log, 100).await? {
        let owner = if name == "one" { &one } else { &two };
        ensure!(owner.owns(&message), "the handler of {name} got a message of the other topic");
    }
    router.stop().await;
    Ok(())
}

async fn traces_go_on_in_handlers(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (seen, mut log) = mpsc::unbounded_channel();
    let journal = Journal::new();
    let handler = ours(&topic, &journal, move |_message| {
        let seen = seen.clone();
        async move {
            seen.send(correlation::current().trace).ok();
            Ok(())
        }
    });
    let router = topic.start(Router::new().route("trace", topic.subscriber("g").await?, handler));
    let trace = TraceContext::new();
    let traceparent = String::from_utf8_lossy(&trace.traceparent()).into_owned();
    let message = topic.message("traced").with_attribute("traceparent", traceparent);
    topic.send(&topic.publisher().await?, message).await?;
    let Some(Some(seen)) = drain(&topic, &mut log, 1).await?.pop() else {
        return Err(Fault::new("the handler runs in no trace"));
    };
    ensure!(seen.trace_id_hex() == trace.trace_id_hex(), "the handler runs in another trace than its message");
    router.stop().await;
    Ok(())
}

async fn retries_are_exact_on_a_paused_clock(stage: Stage) -> Result<(), Fault> {
    let make = stage.backend.paused_runtime().map_err(Fault::new)?;
    // It has a thread to itself: a clock can only be paused where no other runs.
    let work = tokio::task::spawn_blocking(move || {
        let runtime = make().map_err(|error| Fault::new(format!("no runtime: {error}")))?;
        runtime.block_on(on_a_paused_clock(stage))
    });
    work.await.map_err(|error| Fault::new(format!("panicked: {error}")))?
}

async fn on_a_paused_clock(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (seen, mut log) = mpsc::unbounded_channel();
    let started = Instant::now();
    let handler = move |_message: Message| {
        seen.send(started.elapsed().as_secs()).ok();
        async { Err::<(), Failure>("not yet".into()) }
    };
    let backoff = Backoff::exponential(Duration::from_secs(10), Duration::from_secs(25)).without_jitter();
    let policy = Policy::default().attempts(4).backoff(backoff);
    let router = topic.start(Router::new().route("retry", topic.subscriber("g").await?, handler).policy(policy));
    let publisher = topic.publisher().await?;
    publisher.publish(topic.message("poison")).await?;
    let mut tries = Vec::new();
    while tries.len() < 4 {
        let next = within(Duration::from_secs(120), "the next try", log.recv()).await?;
        tries.extend(next);
    }
    ensure!(tries == [0, 10, 30, 55], "the tries were at {tries:?} s, not at 0, 10, 30 and 55");
    router.stop().await;
    Ok(())
}

/// Panics without the noise that a panic makes on standard error.
pub(super) fn panics() -> ! {
    std::panic::resume_unwind(Box::new("on purpose"))
}

/// A handler that passes over messages of others, and writes down its end.
pub(super) fn ours<F, Fut>(
    topic: &Topic,
    journal: &Journal,
    handle: F,
) -> impl Fn(Message) -> futures_util::future::BoxFuture<'static, Result<(), Failure>> + Clone + Send + 'static
where
    F: Fn(Message) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (topic, journal) = (topic.clone(), journal.clone());
    move |message: Message| {
        if !topic.owns(&message) {
            return Box::pin(std::future::ready(Ok(())));
        }
        let handling = journal.handling(&message);
        let handled = handle(message);
        Box::pin(async move {
            let result = handled.await;
            handling.ended(result.is_ok());
            result
        })
    }
}

/// Waits for this many things that handlers saw.
pub(super) async fn drain<T>(
    topic: &Topic,
    log: &mut mpsc::UnboundedReceiver<T>,
    count: usize,
) -> Result<Vec<T>, Fault> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = within(topic.patience, "the next handler", log.recv()).await;
        let next = next.map_err(|Fault(why)| Fault::new(format!("{} of {count} were handled: {why}", seen.len())))?;
        seen.push(next.ok_or_else(|| Fault::new("the router is gone"))?);
    }
    Ok(seen)
}

fn clean(journal: &Journal, rules: Rules) -> Result<(), Fault> {
    let verdict = journal.check(&rules);
    ensure!(verdict.is_clean(), "{verdict}");
    Ok(())
}
