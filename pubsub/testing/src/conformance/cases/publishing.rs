//! Publishing: what `Ok` means, batches, cancelling, several topics.

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, same, within};

table! {
    published_messages_are_received[] 3 "What was published is received once, and nothing else.";
    batches_are_answered_entry_by_entry[] 3 "A batch larger than the broker's is split, and every entry has its own receipt.";
    many_publishers_and_many_subscribers[] 4 "Nothing is lost or comes twice when many publish and many receive.";
    topics_do_not_mix[Topics] 3 "A topic's subscribers see its own messages only.";
    many_topics_at_once[Topics] 4 "Topics that are made and used at the same time do not disturb each other.";
    a_flush_leaves_nothing_behind[] 4 "After a flush everything published before is with the broker, also when the publisher is dropped.";
    a_cancelled_publish_harms_nothing[] 3 "Dropping publishes half-way loses no other message, and leaks no room in the window.";
    another_runtime_may_publish_and_settle[] 3 "Publishing and settling work from a runtime that ends right after.";
}

async fn published_messages_are_received(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let sent = topic.send_numbers(&publisher, 100).await?;
    inbox.read_exactly(&sent).await?;
    inbox.close().await
}

async fn batches_are_answered_entry_by_entry(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let count = publisher.capabilities().limits.batch.unwrap_or(100).min(1500) + 7;
    let messages: Vec<_> = (0..count).map(|n| topic.message(n.to_string())).collect();
    let results = within(topic.patience, "publishing", publisher.publish_all(messages.clone())).await?;
    ensure!(results.len() == count, "{} answers for {count} messages", results.len());
    for (message, result) in messages.iter().zip(results) {
        let receipt = result?;
        ensure!(receipt.id == message.id, "the receipts are not in the order of the messages");
    }
    inbox.read_exactly(&messages).await.map(drop)
}

async fn many_publishers_and_many_subscribers(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (publishers, each) = (stage.size(20, 50), stage.size(25, 100));
    let mut inboxes = Vec::new();
    for _ in 0..stage.size(5, 10) {
        inboxes.push(topic.inbox("g").await?);
    }
    let mut sending = JoinSet::new();
    for sender in 0..publishers {
        let topic = topic.clone();
        sending.spawn(async move {
            let publisher = topic.publisher().await?;
            let messages: Vec<_> = (0..each).map(|n| topic.message(format!("{sender}/{n}"))).collect();
            for message in &messages {
                topic.send(&publisher, message.clone()).await?;
            }
            Ok::<_, Fault>(messages)
        });
    }
    let expected = publishers * each;
    let (read, received) = tokio::sync::watch::channel(0);
    let mut reading = JoinSet::new();
    for mut inbox in inboxes {
        let (read, mut received) = (read.clone(), received.clone());
        reading.spawn(async move {
            let mut messages = Vec::new();
            loop {
                let delivery = tokio::select! {
                    next = inbox.maybe() => next?,
                    _ = received.wait_for(|count| *count >= expected) => return Ok::<_, Fault>(messages),
                };
                let Some(delivery) = delivery else { continue };
                messages.push(delivery.message().clone());
                delivery.ack().await?;
                read.send_modify(|count| *count += 1);
            }
        });
    }
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    for messages in sending.join_all().await {
        sent.extend(messages?);
    }
    let all = within(stage.patience() * 2, "receiving everything", reading.join_all()).await;
    let all = all.map_err(|Fault(why)| Fault::new(format!("{why}: {} of {expected} came", *received.borrow())))?;
    for messages in all {
        got.extend(messages?);
    }
    same(&sent, &got)?;
    topic.inbox("g").await?.is_quiet("every message has been acked").await
}

async fn topics_do_not_mix(stage: Stage) -> Result<(), Fault> {
    let (one, two) = (stage.topic().await?, stage.topic().await?);
    let (mut inbox_one, mut inbox_two) = (one.subscriber("g").await?, two.subscriber("g").await?);
    one.send(&one.publisher().await?, one.message("one")).await?;
    two.send(&two.publisher().await?, two.message("two")).await?;
    for (topic, other, inbox) in [(&one, &two, &mut inbox_one), (&two, &one, &mut inbox_two)] {
        let next = within(topic.patience, "receiving", inbox.next()).await??;
        let delivery = next.ok_or_else(|| Fault::new("the subscriber is closed"))?;
        ensure!(!other.owns(delivery.message()), "a message of {} came from {}", other.url, topic.url);
        delivery.ack().await?;
        let more = tokio::time::timeout(topic.quiet, inbox.next()).await;
        ensure!(more.is_err(), "a second message came from {}", topic.url);
    }
    Ok(())
}

async fn many_topics_at_once(stage: Stage) -> Result<(), Fault> {
    let count = stage.size(50, 100);
    let mut topics = JoinSet::new();
    for _ in 0..stage.size(10, 20) {
        let stage = stage.clone();
        topics.spawn(async move {
            let topic = stage.topic().await?;
            let mut inbox = topic.inbox("g").await?;
            let sent = topic.send_numbers(&topic.publisher().await?, count).await?;
            inbox.read_exactly(&sent).await.map(drop)
        });
    }
    topics.join_all().await.into_iter().collect()
}

async fn a_flush_leaves_nothing_behind(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let mut inbox = topic.inbox("g").await?;
    let publisher = topic.publisher().await?;
    let messages: Vec<_> = (0..stage.size(200, 10_000)).map(|n| topic.message(n.to_string())).collect();
    let mut tasks = JoinSet::new();
    for chunk in messages.chunks(messages.len().div_ceil(20)) {
        let (topic, publisher, chunk) = (topic.clone(), publisher.clone(), chunk.to_vec());
        tasks.spawn(async move { topic.send_all(&publisher, chunk).await });
    }
    // What has begun by now is what the flush waits for; the rest is waited for by its own task.
    let deadline = Instant::now() + topic.patience;
    within(topic.patience * 2, "the flush", publisher.flush(deadline)).await??;
    tasks.join_all().await.into_iter().collect::<Result<(), Fault>>()?;
    within(topic.patience * 2, "the second flush", publisher.flush(Instant::now() + topic.patience)).await??;
    drop(publisher);
    inbox.read_exactly(&messages).await.map(drop)
}

async fn a_cancelled_publish_harms_nothing(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    // More than any window is wide: room that is not given back would show.
    for n in 0..2_500 {
        drop(publisher.publish(topic.message(format!("cancelled {n}"))).now_or_never());
    }
    let sent = topic.send_numbers(&publisher, 20).await?;
    let mut missing: std::collections::BTreeSet<_> = sent.iter().map(|message| message.id.clone()).collect();
    while !missing.is_empty() {
        let delivery = inbox.next().await?;
        missing.remove(&delivery.message().id);
        delivery.ack().await?;
    }
    Ok(())
}

async fn another_runtime_may_publish_and_settle(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let message = topic.message("from elsewhere");
    let sent = message.clone();
    elsewhere(move |runtime| runtime.block_on(publisher.publish(sent)).map(drop)).await??;
    let delivery = inbox.next().await?;
    ensure!(delivery.message().id == message.id, "another message came");
    elsewhere(move |runtime| runtime.block_on(delivery.ack())).await??;
    inbox.is_quiet("the message was acked from another runtime").await
}

/// Runs `work` on a thread with a runtime that ends with it.
async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce(&tokio::runtime::Runtime) -> T + Send + 'static,
) -> Result<T, Fault> {
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| work(&runtime)).map_err(|error| Fault::new(format!("no runtime: {error}")))
    });
    thread.await.map_err(|error| Fault::new(format!("the other runtime panicked: {error}")))?
}
