//! What handlers publish in one step with their message's ack.

use std::time::Duration;

use mainspring_pubsub::{Attempt, Backoff, Failure, Message, Outbox, Policy, Publisher, Router};
use tokio::sync::mpsc;

use super::router::drain;
use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, Topic, text, within};

table! {
    outputs_are_seen_once[Transactions Topics] 6 "What handlers leave in their outbox is seen once for each message, and nothing of attempts that failed.";
    outputs_of_an_aborted_handler_are_not_seen[Transactions Topics] 6 "What a handler left that was aborted is never seen; its message is handled again, and that is.";
}

async fn outputs_are_seen_once(stage: Stage) -> Result<(), Fault> {
    let (topic, onward) = (stage.topic().await?, stage.topic().await?);
    let (to, mut outputs) = (onward.publisher().await?, onward.inbox("outputs").await?);
    let (own, out) = (topic.clone(), onward.clone());
    let handler = move |message: Message, Attempt(attempt): Attempt, outbox: Outbox| {
        let left = leave(&own, &out, &to, &message, attempt, &outbox);
        async move {
            left?;
            let fails = attempt == 1 && text(&message).ends_with('3');
            if fails { Err::<(), Failure>("not yet".into()) } else { Ok(()) }
        }
    };
    let policy = Policy::default().backoff(Backoff::fixed(Duration::from_millis(10)));
    let router = Router::new().route("once", topic.subscriber("g").await?, handler).policy(policy).exactly_once();
    let router = topic.start(router);
    topic.send_numbers(&topic.publisher().await?, 50).await?;
    let expected = (0..50).map(|n| format!("{n} by attempt {}", if n % 10 == 3 { 2 } else { 1 }));
    let mut read: Vec<_> = outputs.read(50).await?.iter().map(text).collect();
    let mut expected: Vec<_> = expected.collect();
    read.sort();
    expected.sort();
    ensure!(read == expected, "the outputs are {read:?}");
    router.stop().await;
    outputs.is_quiet("each message has its output").await
}

async fn outputs_of_an_aborted_handler_are_not_seen(stage: Stage) -> Result<(), Fault> {
    let (topic, onward) = (stage.topic().await?, stage.topic().await?);
    let (to, mut outputs) = (onward.publisher().await?, onward.inbox("outputs").await?);
    let (seen, mut log) = mpsc::unbounded_channel();
    let start = async |life: u32| {
        let (own, out, to, seen) = (topic.clone(), onward.clone(), to.clone(), seen.clone());
        let handler = move |message: Message, outbox: Outbox| {
            let left = leave(&own, &out, &to, &message, life, &outbox);
            seen.send(()).ok();
            async move {
                left?;
                match life {
                    1 => std::future::pending().await,
                    _ => Ok::<_, Failure>(()),
                }
            }
        };
        let router = Router::new().route("once", topic.subscriber("g").await?, handler).exactly_once();
        Ok::<_, Fault>(topic.start(router))
    };
    let first = start(1).await?;
    topic.send(&topic.publisher().await?, topic.message("0")).await?;
    drain(&topic, &mut log, 1).await?;
    within(topic.patience, "aborting a router", first.abort()).await?;
    let second = start(2).await?;
    let read: Vec<_> = outputs.read(1).await?.iter().map(text).collect();
    ensure!(read == ["0 by attempt 2"], "the outputs are {read:?}");
    second.stop().await;
    outputs.is_quiet("the message has its output").await
}

/// Leaves an output that says what it was made of.
fn leave(
    topic: &Topic,
    onward: &Topic,
    to: &Publisher,
    message: &Message,
    attempt: u32,
    outbox: &Outbox,
) -> Result<(), Failure> {
    if topic.owns(message) {
        outbox.publish(to, onward.message(format!("{} by attempt {attempt}", text(message))))?;
    }
    Ok(())
}
