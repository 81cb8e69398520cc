//! Closing, cancelling and coming back.

use mainspring_pubsub::ErrorKind;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, confirmed, same, text, within};

table! {
    a_closed_subscriber_answers_none[] 3 "After close, next answers None at once; closing again is harmless.";
    closing_is_bounded[] 4 "Closing ends in time also when deliveries are out, and so does dropping.";
    cancelled_receives_lose_nothing[] 4 "Dropping the future of a receive at any point loses no message.";
    a_dropped_subscriber_gives_everything_back[] 4 "What a subscriber held when it was dropped comes to the next one.";
    reading_goes_on_where_it_ended[] 6 "Subscribers that come and go read every message once between them.";
    reading_goes_on_after_errors[] 6 "After subscribers that only ever failed, a new one gets everything.";
    many_may_open_and_close_at_once[] 6 "Opening and closing many subscribers of a group at once leaves the group whole.";
    closing_keeps_what_was_settled[] 5 "Right before a close: what was acked never comes, what was held and what was published does.";
    settling_after_a_close_is_honest[] 4 "An ack of what was out when its subscriber closed answers Ok and the message never comes again, or Lost or Closed and it does.";
    publishing_outlives_subscribers[] 4 "Publishers go on while subscribers close, and nothing is lost.";
}

async fn a_closed_subscriber_answers_none(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send_numbers(&publisher, 3).await?;
    confirmed(topic.patience, inbox.next().await?.ack()).await?;
    inbox.close().await?;
    for _ in 0..2 {
        let next = within(topic.patience, "receiving", inbox.subscriber().next()).await??;
        ensure!(next.is_none(), "a closed subscriber handed out a message");
        inbox.close().await?;
    }
    Ok(())
}

async fn closing_is_bounded(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send_numbers(&publisher, 5).await?;
    let held = inbox.hold(3).await?;
    let budget = topic.patience / 3;
    let started = Instant::now();
    let closed = within(topic.patience, "closing", inbox.subscriber().close(started + budget)).await?;
    let took = started.elapsed();
    ensure!(took <= budget + std::time::Duration::from_secs(1), "closing took {took:?}, it had {budget:?}: {closed:?}");
    drop(held);
    let started = Instant::now();
    drop(topic.inbox("g").await?);
    let took = started.elapsed();
    ensure!(took <= topic.patience, "opening and dropping took {took:?}");
    Ok(())
}

async fn cancelled_receives_lose_nothing(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let count = 200;
    let mut sending = JoinSet::new();
    let sender = topic.clone();
    sending.spawn(async move {
        let mut sent = Vec::new();
        for n in 0..count {
            let message = sender.message(n.to_string());
            sender.send(&publisher, message.clone()).await?;
            sent.push(message);
            tokio::time::sleep(std::time::Duration::from_micros(fastrand::u64(0..300))).await;
        }
        Ok::<_, Fault>(sent)
    });
    let mut got = Vec::new();
    let waiting = Instant::now();
    while got.len() < count {
        ensure!(waiting.elapsed() < topic.patience * 2, "{} of {count} messages came", got.len());
        let limit = std::time::Duration::from_micros(fastrand::u64(0..500));
        // Cancelled before, while and after a message comes.
        let Ok(next) = tokio::time::timeout(limit, inbox.subscriber().next()).await else { continue };
        let Some(delivery) = next? else { return Err(Fault::new("the subscriber closed by itself")) };
        if topic.owns(delivery.message()) {
            got.push(delivery.message().clone());
        }
        confirmed(topic.patience, delivery.ack()).await?;
    }
    let mut sent = Vec::new();
    for messages in sending.join_all().await {
        sent.extend(messages?);
    }
    same(&sent, &got)
}

async fn a_dropped_subscriber_gives_everything_back(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let sent = topic.send_numbers(&publisher, 20).await?;
    let held = inbox.hold(20).await?;
    drop(inbox);
    drop(held);
    let mut again = topic.again().await?.inbox("g").await?;
    again.read_exactly(&sent).await.map(drop)
}

async fn reading_goes_on_where_it_ended(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let count = stage.size(50, 5000);
    let sent = topic.send_numbers(&publisher, count).await?;
    let mut got = Vec::new();
    for _ in 0..5 {
        got.extend(inbox.read(count / 5).await?);
        inbox.close().await?;
        inbox.close().await?;
        inbox = topic.again().await?.inbox("g").await?;
    }
    same(&sent, &got)?;
    inbox.is_quiet("every message has been acked").await
}

async fn reading_goes_on_after_errors(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let first = topic.inbox("g").await?;
    let sent = topic.send_numbers(&topic.publisher().await?, 50).await?;
    drop(first);
    for _ in 0..stage.size(2, 3) {
        let mut failing = topic.inbox("g").await?;
        for _ in 0..stage.size(10, 100) {
            drop(failing.next().await?);
        }
        failing.close().await?;
    }
    let mut inbox = topic.inbox("g").await?;
    inbox.read_exactly(&sent).await.map(drop)
}

async fn many_may_open_and_close_at_once(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    drop(topic.inbox("g").await?);
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let topic = topic.clone();
        tasks.spawn(async move {
            let mut inbox = topic.inbox("g").await?;
            inbox.close().await
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<(), Fault>>()?;
    let sent = topic.send_numbers(&topic.publisher().await?, 50).await?;
    topic.inbox("g").await?.read_exactly(&sent).await.map(drop)
}

async fn closing_keeps_what_was_settled(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    for body in ["a", "b"] {
        topic.send(&publisher, topic.message(body)).await?;
    }
    let mut held = Vec::new();
    for delivery in inbox.hold(2).await? {
        if text(delivery.message()) == "a" {
            drop(delivery.ack());
        } else {
            held.push(delivery);
        }
    }
    topic.send(&publisher, topic.message("c")).await?;
    inbox.close().await?;
    drop(inbox);
    drop(held);
    let mut again = topic.again().await?.inbox("g").await?;
    let mut came: Vec<_> = again.read(2).await?.iter().map(text).collect();
    came.sort_unstable();
    ensure!(came == ["b", "c"], "a was acked, b held, c published: {came:?} came");
    again.is_quiet("a was acked").await
}

async fn settling_after_a_close_is_honest(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let mut left = topic.send_numbers(&publisher, 4).await?;
    let held = inbox.hold(4).await?;
    inbox.close().await?;
    for delivery in held {
        let id = delivery.message().id.clone();
        match within(topic.patience, "settling", delivery.ack()).await? {
            Ok(()) => left.retain(|message| message.id != id),
            Err(error) if matches!(error.kind(), ErrorKind::Lost | ErrorKind::Closed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    drop(inbox);
    let mut again = topic.again().await?.inbox("g").await?;
    again.read_exactly(&left).await.map(drop)
}

async fn publishing_outlives_subscribers(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let mut inbox = topic.inbox("g").await?;
    let publisher = topic.publisher().await?;
    let rounds = stage.size(5, 15);
    let sender = topic.clone();
    let (go_on, mut told) = tokio::sync::mpsc::channel::<()>(1);
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        let mut sent = Vec::new();
        for round in 0..rounds {
            for n in 0..20 {
                let message = sender.message(format!("{round}/{n}"));
                sender.send(&publisher, message.clone()).await?;
                sent.push(message);
            }
            if told.recv().await.is_none() {
                break;
            }
        }
        Ok::<_, Fault>(sent)
    });
    let mut got = Vec::new();
    for _ in 0..rounds {
        got.extend(inbox.read(10).await?);
        go_on.send(()).await.ok();
        inbox.close().await?;
        inbox = topic.inbox("g").await?;
    }
    drop(go_on);
    let mut sent = Vec::new();
    for messages in sending.join_all().await {
        sent.extend(messages?);
    }
    got.extend(inbox.read(sent.len() - got.len()).await?);
    same(&sent, &got)
}
