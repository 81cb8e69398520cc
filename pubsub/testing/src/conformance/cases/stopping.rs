//! Stopping, taking over, and coming and going.

use std::sync::Arc;
use std::time::Duration;

use mainspring_pubsub::{Failure, Message, Router};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::router::{drain, ours};
use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, confirmed, same, text, within};
use crate::history::{Journal, Order, Rules};

table! {
    a_stop_finishes_what_has_begun[] 5 "Handlers that run when the router stops finish and are acked; the rest comes to the next router.";
    a_stop_keeps_to_its_budget[] 4 "A handler that hangs does not hold up a stop beyond its budget and one second; its message comes again and is no dead letter.";
    a_takeover_loses_and_repeats_nothing[] 8 "Routers that stop mid-stream, each followed by the next, handle every message once.";
    an_aborted_router_gives_everything_back[] 5 "A router that is dropped gives back all it held.";
    a_hung_message_comes_again_and_hardly_any_other[] 6 "When one of a hundred messages hangs, the rest finish and the router is dropped, that one comes again.";
    coming_and_going_loses_and_repeats_nothing[] 12 "While members join and leave a group all the time, every message is handled once, in order of its key.";
    a_restart_of_the_broker_loses_nothing[Restart] 12 "Publishers and subscribers that live through a restart of the broker lose nothing.";
}

async fn a_stop_finishes_what_has_begun(stage: Stage) -> Result<(), Fault> {
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
    let router = Router::new().route("stop", topic.subscriber("g").await?, handler).concurrency(4);
    let mut router = topic.start(router);
    let sent = topic.send_numbers(&topic.publisher().await?, 20).await?;
    let begun = drain(&topic, &mut log, 4).await?;
    router.request_stop(topic.patience);
    open.add_permits(1000);
    let Some(ended) = router.ended(topic.patience * 2).await else { return Err(Fault::new("the router did not stop")) };
    ended?;
    // A handler may begin between the request and its arrival; what began has finished.
    let mut handled = begun;
    while let Ok(message) = log.try_recv() {
        handled.push(message);
    }
    let left: Vec<_> = sent.into_iter().filter(|m| handled.iter().all(|handled| handled.id != m.id)).collect();
    let mut again = topic.again().await?.inbox("g").await?;
    let read = again.read_exactly(&left).await?;
    same(&left, &read)
}

async fn a_stop_keeps_to_its_budget(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (began, mut log) = mpsc::unbounded_channel();
    let own = topic.clone();
    let handler = move |message: Message| {
        let (began, own) = (began.clone(), own.owns(&message));
        async move {
            if own {
                began.send(message).ok();
                std::future::pending::<()>().await;
            }
            Ok::<_, Failure>(())
        }
    };
    let (dead, watched) = mpsc::unbounded_channel();
    let router = Router::new().route("hang", topic.subscriber("g").await?, handler);
    let router = router.on_dead_letter(move |letter| drop(dead.send(letter.reason.to_owned())));
    let mut router = topic.start(router);
    topic.send(&topic.publisher().await?, topic.message("hangs")).await?;
    drain(&topic, &mut log, 1).await?;
    let budget = Duration::from_secs(1);
    let started = Instant::now();
    router.request_stop(budget);
    let Some(ended) = router.ended(topic.patience).await else { return Err(Fault::new("the router did not stop")) };
    ended?;
    let took = started.elapsed();
    ensure!(took <= budget + Duration::from_secs(1), "stopping took {took:?}, the budget was {budget:?}");
    ensure!(watched.is_empty(), "the message became a dead letter");
    // Held until the ack has landed: what a dropped subscriber had out is lost.
    let mut inbox = topic.again().await?.inbox("g").await?;
    let again = inbox.next().await?;
    let attempt = again.attempt();
    ensure!(!stage.can.attempts || attempt == Some(1), "being cut off used up an attempt: the next is {attempt:?}");
    confirmed(topic.patience, again.ack()).await
}

async fn a_takeover_loses_and_repeats_nothing(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let journal = Journal::new();
    let (seen, mut log) = mpsc::unbounded_channel();
    let handler = ours(&topic, &journal, move |message| {
        let seen = seen.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..5))).await;
            seen.send(message).ok();
            Ok(())
        }
    });
    let first = topic.watched(&journal, "router 0").await?;
    let mut running = topic.start(Router::new().route("takeover", first, handler.clone()).concurrency(16));
    let (publisher, producer) = (topic.publisher().await?, topic.producer(&journal));
    let (count, takeovers) = (stage.size(1000, 10_000), stage.size(5, 30));
    let messages = (0..count).map(|n| topic.message(n.to_string()).with_key(format!("k{}", n % 50)));
    for result in producer.publish_all(&publisher, messages.collect()).await {
        result?;
    }
    let mut handled = 0;
    for n in 1..=takeovers {
        let part = count / (takeovers * 2);
        drain(&topic, &mut log, part).await?;
        handled += part;
        running.request_stop(topic.patience);
        let ended = running.ended(topic.patience * 2).await;
        ended.ok_or_else(|| Fault::new(format!("router {n} did not stop")))??;
        let topic = topic.again().await?;
        let next = topic.watched(&journal, &format!("router {n}")).await?;
        running = topic.start(Router::new().route("takeover", next, handler.clone()).concurrency(16));
    }
    drain(&topic, &mut log, count - handled).await?;
    running.stop().await;
    clean(&journal, Rules::default())
}

async fn an_aborted_router_gives_everything_back(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (began, mut log) = mpsc::unbounded_channel();
    let own = topic.clone();
    let handler = move |message: Message| {
        let (began, own) = (began.clone(), own.owns(&message));
        async move {
            if own {
                began.send(message).ok();
                std::future::pending::<()>().await;
            }
            Ok::<_, Failure>(())
        }
    };
    let router = topic.start(Router::new().route("abort", topic.subscriber("g").await?, handler).concurrency(4));
    let sent = topic.send_numbers(&topic.publisher().await?, 20).await?;
    drain(&topic, &mut log, 4).await?;
    router.abort().await;
    let mut again = topic.again().await?.inbox("g").await?;
    again.read_exactly(&sent).await.map(drop)
}

async fn a_hung_message_comes_again_and_hardly_any_other(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (seen, mut log) = mpsc::unbounded_channel();
    let journal = Journal::new();
    let handler = ours(&topic, &journal, move |message| {
        let seen = seen.clone();
        async move {
            if text(&message) == "5" {
                std::future::pending::<()>().await;
            }
            seen.send(message).ok();
            Ok(())
        }
    });
    let inbox = topic.watched(&journal, "router").await?;
    let router = topic.start(Router::new().route("gap", inbox, handler).concurrency(8));
    let (publisher, producer) = (topic.publisher().await?, topic.producer(&journal));
    let messages = (0..100).map(|n| topic.message(n.to_string()).with_key(format!("k{n}")));
    for result in producer.publish_all(&publisher, messages.collect()).await {
        result?;
    }
    drain(&topic, &mut log, 99).await?;
    // The last acks follow the handlers' ends; the broker may take its time to note them.
    tokio::time::sleep(topic.quiet).await;
    router.abort().await;
    let mut again = topic.again().await?.inbox("g").await?;
    let (mut came, mut others) = (false, 0);
    while let Some(delivery) = if came { again.maybe().await? } else { Some(again.next().await?) } {
        match text(delivery.message()).as_str() {
            "5" => came = true,
            _ => others += 1,
        }
        confirmed(topic.patience, delivery.ack()).await?;
    }
    ensure!(others <= 8, "with the one that hung came {others} others that were done");
    Ok(())
}

async fn coming_and_going_loses_and_repeats_nothing(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let journal = Journal::new();
    let (seen, mut log) = mpsc::unbounded_channel();
    let handler = ours(&topic, &journal, move |message| {
        let seen = seen.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(5..50))).await;
            seen.send(message).ok();
            Ok(())
        }
    });
    let member = async |name: &str| {
        let inbox = topic.watched(&journal, name).await?;
        Ok::<_, Fault>(topic.start(Router::new().route("member", inbox, handler.clone()).concurrency(16)))
    };
    let staying = member("staying").await?;
    let (publisher, producer) = (topic.publisher().await?, topic.producer(&journal));
    let rounds = stage.size(8, 50);
    let mut published = 0;
    let mut passing: Vec<crate::Running> = Vec::new();
    for round in 0..rounds {
        for _ in 0..40 {
            let message = topic.message(published.to_string()).with_key(format!("k{}", published % 50));
            producer.publish(&publisher, message).await?;
            published += 1;
        }
        match passing.len() {
            0 | 1 => passing.push(member(&format!("passing {round}")).await?),
            _ => {
                let mut leaving = passing.remove(0);
                leaving.request_stop(topic.patience);
                let ended = leaving.ended(topic.patience * 2).await;
                ended.ok_or_else(|| Fault::new("a member did not stop"))??;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drain(&topic, &mut log, published).await?;
    for member in passing {
        member.stop().await;
    }
    staying.stop().await;
    clean(&journal, Rules::default().order(Order::FirstDelivery))
}

async fn a_restart_of_the_broker_loses_nothing(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let mut inbox = topic.inbox("g").await?;
    let (publisher, count) = (topic.publisher().await?, stage.size(300, 10_000));
    let sender = topic.clone();
    let mut sending = tokio::task::JoinSet::new();
    sending.spawn(async move {
        let mut sent = Vec::new();
        for n in 0..count {
            let message = sender.message(n.to_string());
            let started = Instant::now();
            // Publishing again after an unknown outcome may repeat a message; that is the publisher's doing.
            while let Err(error) = publisher.publish(message.clone()).await {
                let patient = error.is_retryable() && started.elapsed() < sender.patience * 4;
                ensure!(patient, "publishing does not recover: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            sent.push(message);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..10))).await;
        }
        Ok::<_, Fault>(sent)
    });
    let mut got = std::collections::BTreeMap::new();
    let mut restarts = [count / 3, count / 2].into_iter().peekable();
    let started = Instant::now();
    while got.len() < count {
        ensure!(started.elapsed() < topic.patience * 10, "{} of {count} messages came", got.len());
        if restarts.next_if(|at| got.len() >= *at).is_some() {
            within(topic.patience * 4, "the restart", stage.backend.restart()).await??;
        }
        if let Some(delivery) = inbox.maybe().await? {
            got.insert(delivery.message().id.clone(), delivery.message().clone());
            drop(delivery.ack());
        }
    }
    let got: Vec<_> = got.into_values().collect();
    for sent in sending.join_all().await {
        same(&sent?, &got)?;
    }
    Ok(())
}

fn clean(journal: &Journal, rules: Rules) -> Result<(), Fault> {
    let verdict = journal.check(&rules);
    ensure!(verdict.is_clean(), "{verdict}");
    Ok(())
}
