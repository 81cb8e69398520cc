//! Handlers of several messages at once.

use std::time::Duration;

use mainspring_pubsub::{Attempt, Backoff, Batching, Failure, Message, Policy, Router};
use tokio::sync::mpsc;

use super::router::drain;
use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, confirmed, same, text};

table! {
    each_message_of_a_batch_has_its_outcome[Topics] 5 "Of a batch, what fails is handled again, what is rejected becomes a dead letter, and the others are done with.";
}

async fn each_message_of_a_batch_has_its_outcome(stage: Stage) -> Result<(), Fault> {
    let (topic, dead) = (stage.topic().await?, stage.topic().await?);
    let mut letters = topic.reads(dead.subscriber("letters").await?);
    let (seen, mut log) = mpsc::unbounded_channel();
    let own = topic.clone();
    let handler = move |items: Vec<(Attempt, Message)>| {
        let outcome = |(Attempt(attempt), message): (Attempt, Message)| {
            let n: usize = text(&message).parse()?;
            match (n % 5, attempt) {
                (2, 1) => Err("not yet".into()),
                (4, _) => Err(Failure::reject("never")),
                _ => {
                    seen.send(message).ok();
                    Ok(())
                }
            }
        };
        let outcomes: Vec<_> =
            items.into_iter().map(|item| if own.owns(&item.1) { outcome(item) } else { Ok(()) }).collect();
        async move { outcomes }
    };
    let policy = Policy::default().backoff(Backoff::fixed(Duration::from_millis(10)));
    let batching = Batching::up_to(8).linger(Duration::from_millis(50));
    let router = Router::new().route_batch("batch", topic.subscriber("g").await?, batching, handler).policy(policy);
    let router = topic.start(router.concurrency(2).dead_letter(dead.publisher().await?));
    let sent = topic.send_numbers(&topic.publisher().await?, 50).await?;
    let (rejected, good): (Vec<_>, Vec<_>) = sent.into_iter().partition(|message| text(message).ends_with(['4', '9']));
    same(&good, &drain(&topic, &mut log, good.len()).await?)?;
    let mut given_up = Vec::new();
    for _ in &rejected {
        let delivery = letters.next().await?;
        given_up.push(delivery.message().clone());
        confirmed(topic.patience, delivery.ack()).await?;
    }
    same(&rejected, &given_up)?;
    router.stop().await;
    ensure!(log.is_empty(), "{} messages were handled again", log.len());
    topic.inbox("g").await?.is_quiet("each message of each batch is done with").await
}
