//! Groups, and those who share one.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, confirmed, same, within};

table! {
    each_group_sees_everything[] 4 "Two groups of a topic each get every message.";
    a_slow_group_does_not_hold_up_others[] 4 "A group that settles nothing does not keep another from its messages.";
    a_late_member_shares_the_work[] 6 "A subscriber that joins later gets messages too, and nothing is lost or comes twice.";
    a_new_group_sees_older_messages[Replay] 4 "A group that comes later gets what was published before it.";
    messages_wait_for_their_group[] 4 "What is published while a group has no subscriber is there when one comes back.";
    cancelling_one_receive_leaves_the_others[] 4 "Cancelling one subscriber's receive takes nothing from the others.";
    one_subscriber_may_leave[] 4 "When one subscriber of several closes, the others go on and nothing is lost.";
}

async fn each_group_sees_everything(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut one, mut two) = (topic.inbox("one").await?, topic.inbox("two").await?);
    let sent = topic.send_numbers(&topic.publisher().await?, 50).await?;
    one.read_exactly(&sent).await?;
    two.read_exactly(&sent).await.map(drop)
}

async fn a_slow_group_does_not_hold_up_others(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut slow, mut quick) = (topic.inbox("slow").await?, topic.inbox("quick").await?);
    let publisher = topic.publisher().await?;
    topic.send(&publisher, topic.message("first")).await?;
    let held = slow.next().await?;
    let mut sent = topic.send_numbers(&publisher, 200).await?;
    let read = quick.read(201).await?;
    sent.push(held.message().clone());
    same(&sent, &read)?;
    confirmed(topic.patience, held.ack()).await?;
    slow.read(200).await.map(drop)
}

async fn a_late_member_shares_the_work(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let publisher = topic.publisher().await?;
    let mut early = topic.inbox("g").await?;
    let keyed = |n: usize| topic.message(n.to_string()).with_key(format!("k{n}"));
    let first: Vec<_> = (0..20).map(keyed).collect();
    topic.send_all(&publisher, first.clone()).await?;
    same(&first, &early.read(20).await?)?;

    let mut late = topic.inbox("g").await?;
    let (mut sent, mut got, mut of_late) = (Vec::new(), Vec::new(), 0);
    // How soon the work is shared is the broker's affair, that it is shared is not.
    let joined = tokio::time::Instant::now();
    for round in 1_usize.. {
        ensure!(joined.elapsed() < topic.patience, "the late member got none of {} messages", sent.len());
        tokio::time::sleep(topic.quiet / 10).await;
        let batch: Vec<_> = (0..20).map(|n| keyed(round * 20 + n)).collect();
        topic.send_all(&publisher, batch.clone()).await?;
        sent.extend(batch);
        let waiting = tokio::time::Instant::now();
        while got.len() < sent.len() {
            ensure!(waiting.elapsed() < topic.patience, "{} of {} messages came", got.len(), sent.len());
            let (delivery, is_late) = tokio::select! {
                next = early.maybe() => (next?, false),
                next = late.maybe() => (next?, true),
            };
            let Some(delivery) = delivery else { continue };
            got.push(delivery.message().clone());
            of_late += usize::from(is_late);
            confirmed(topic.patience, delivery.ack()).await?;
        }
        if of_late > 0 && round >= 3 {
            break;
        }
    }
    same(&sent, &got)
}

async fn a_new_group_sees_older_messages(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let publisher = topic.publisher().await?;
    let mut sent = Vec::new();
    for group in 0..3 {
        let more = [topic.message(format!("{group}a")), topic.message(format!("{group}b"))];
        topic.send_all(&publisher, more.to_vec()).await?;
        sent.extend(more);
        let mut inbox = topic.inbox(&format!("g{group}")).await?;
        inbox.read_exactly(&sent).await?;
    }
    Ok(())
}

async fn messages_wait_for_their_group(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let early = topic.send_numbers(&publisher, 5).await?;
    inbox.read_exactly(&early).await?;
    inbox.close().await?;
    drop(inbox);
    let sent = topic.send_numbers(&publisher, 50).await?;
    let mut again = topic.again().await?.inbox("g").await?;
    again.read_exactly(&sent).await.map(drop)
}

async fn cancelling_one_receive_leaves_the_others(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut one, mut two) = (topic.inbox("g").await?, topic.inbox("g").await?);
    let publisher = topic.publisher().await?;
    let sent = topic.send_numbers(&publisher, 100).await?;
    let mut got = Vec::new();
    let waiting = tokio::time::Instant::now();
    while got.len() < sent.len() {
        ensure!(waiting.elapsed() < topic.patience * 2, "{} of {} messages came", got.len(), sent.len());
        // One of the two is cancelled every time.
        let delivery = tokio::select! {
            next = one.maybe() => next?,
            next = two.maybe() => next?,
        };
        let Some(delivery) = delivery else { continue };
        got.push(delivery.message().clone());
        confirmed(topic.patience, delivery.ack()).await?;
    }
    same(&sent, &got)
}

async fn one_subscriber_may_leave(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let publisher = topic.publisher().await?;
    let (mut staying, mut leaving) = (topic.inbox("g").await?, topic.inbox("g").await?);
    let count = 200;
    let mut tasks = JoinSet::new();
    let sender = topic.clone();
    tasks.spawn(async move {
        let mut sent = Vec::new();
        for n in 0..count {
            let message = sender.message(n.to_string()).with_key(format!("k{n}"));
            sender.send(&publisher, message.clone()).await?;
            sent.push(message);
            tokio::task::yield_now().await;
        }
        Ok::<_, Fault>(sent)
    });
    let mut got = Vec::new();
    for _ in 0..20 {
        let Some(delivery) = leaving.maybe().await? else { break };
        got.push(delivery.message().clone());
        confirmed(topic.patience, delivery.ack()).await?;
    }
    let unhandled = leaving.maybe().await?;
    leaving.close().await?;
    drop(unhandled);
    let mut sent = Vec::new();
    for messages in tasks.join_all().await {
        sent.extend(messages?);
    }
    got.extend(staying.read(count - got.len()).await?);
    let ids: BTreeSet<_> = got.iter().map(|message| &message.id).collect();
    ensure!(ids.len() == count, "{} different messages of {count} came", ids.len());
    same(&sent, &got)?;
    within(topic.patience, "the last look", staying.is_quiet("every message has been acked")).await?
}
