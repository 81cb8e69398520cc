//! Order by key.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, confirmed, text, within};
use crate::history::{Journal, Order, Rules};

const KEYS: usize = 16;

table! {
    a_key_keeps_its_order[OrderByKey] 4 "One subscriber gets the messages of each key in the order in which they were published.";
    a_key_keeps_its_order_across_subscribers[OrderByKey HeldKey] 4 "Several subscribers of a group get the messages of a key one at a time, in order.";
    a_message_that_is_out_holds_back_its_key[OrderByKey HeldKey] 3 "The next message of a key does not come before the one before it is settled; other keys go on.";
    a_retry_holds_back_its_key[OrderByKey NackDelay] 3 "While a message waits for its retry, later ones of its key wait with it, and no others.";
}

async fn a_key_keeps_its_order(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let journal = Journal::new();
    let watched = topic.watched(&journal, "reader").await?;
    let mut inbox = topic.reads(watched);
    let (publisher, producer) = (topic.publisher().await?, topic.producer(&journal));
    let count = stage.size(200, 1000);
    let messages = (0..count).map(|n| topic.message(n.to_string()).with_key(format!("k{}", n % KEYS)));
    for result in within(topic.patience, "publishing", producer.publish_all(&publisher, messages.collect())).await? {
        result?;
    }
    inbox.read(count).await?;
    clean(&journal, Order::FirstDelivery)
}

async fn a_key_keeps_its_order_across_subscribers(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let journal = Journal::new();
    let count = stage.size(200, 1000);
    let (read, received) = tokio::sync::watch::channel(0);
    let mut readers = JoinSet::new();
    for n in 0..10 {
        let watched = topic.watched(&journal, &format!("reader {n}")).await?;
        let mut inbox = topic.reads(watched);
        let (read, mut received) = (read.clone(), received.clone());
        readers.spawn(async move {
            loop {
                let next = tokio::select! {
                    next = inbox.maybe() => next?,
                    _ = received.wait_for(|read| *read >= count) => return Ok::<_, Fault>(()),
                };
                let Some(delivery) = next else { continue };
                tokio::time::sleep(Duration::from_micros(fastrand::u64(0..2000))).await;
                delivery.ack().await?;
                read.send_modify(|read| *read += 1);
            }
        });
    }
    let (publisher, producer) = (topic.publisher().await?, topic.producer(&journal));
    for n in 0..count {
        let message = topic.message(n.to_string()).with_key(format!("k{}", n % KEYS));
        producer.publish(&publisher, message).await?;
    }
    let all = within(topic.patience * 2, "receiving everything", readers.join_all()).await?;
    all.into_iter().collect::<Result<(), Fault>>()?;
    clean(&journal, Order::OneAtATime)
}

async fn a_message_that_is_out_holds_back_its_key(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    for (key, body) in [("k", "k1"), ("k", "k2"), ("l", "l1")] {
        topic.send(&publisher, topic.message(body).with_key(key)).await?;
    }
    let held = inbox.hold(2).await?;
    let bodies: Vec<_> = held.iter().map(|delivery| text(delivery.message())).collect();
    ensure!(bodies == ["k1", "l1"], "{bodies:?} came, and k2 should wait for k1");
    inbox.is_quiet("k1 is out").await?;
    for delivery in held {
        confirmed(topic.patience, delivery.ack()).await?;
    }
    let next = inbox.next().await?;
    ensure!(text(next.message()) == "k2", "`{}` came after k1", text(next.message()));
    confirmed(topic.patience, next.ack()).await?;
    inbox.is_quiet("everything is acked").await
}

async fn a_retry_holds_back_its_key(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    for (key, body) in [("k", "k1"), ("k", "k2"), ("l", "l1")] {
        topic.send(&publisher, topic.message(body).with_key(key)).await?;
    }
    let mut came = Vec::new();
    while came.len() < 4 {
        let delivery = inbox.next().await?;
        let body = text(delivery.message());
        let first = body == "k1" && !came.contains(&body);
        let settled = if first { delivery.nack_after(Duration::from_millis(500)) } else { delivery.ack() };
        confirmed(topic.patience, settled).await?;
        came.push(body);
    }
    ensure!(came == ["k1", "l1", "k1", "k2"], "they came as {came:?}");
    Ok(())
}

fn clean(journal: &Journal, order: Order) -> Result<(), Fault> {
    let verdict = journal.check(&Rules::default().order(order));
    ensure!(verdict.is_clean(), "{verdict}");
    Ok(())
}
