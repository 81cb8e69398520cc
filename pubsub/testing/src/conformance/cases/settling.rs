//! Settling: what is done stays done, what is not comes again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mainspring_pubsub::{Delivery, ErrorKind};

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, confirmed, same, text, within};

table! {
    acked_messages_never_come_again[] 4 "What is acked is not delivered again, not to a new subscriber either.";
    nacked_messages_come_again[Nack] 4 "What is nacked is delivered again, and nothing is lost beside it.";
    dropped_deliveries_come_again[] 4 "A delivery that is dropped unsettled is delivered again.";
    released_messages_come_again[] 4 "A message that is handed back is delivered again, and uses up no attempt where attempts are counted.";
    only_what_is_nacked_comes_again[Nack] 4 "Of three messages, two acked and one nacked, the one comes again.";
    rejected_messages_do_not_come_again[] 3 "A rejected message is done with; a broker that cannot reject says so and gives it back.";
    unsupported_outcomes_are_honest[] 3 "An outcome that the broker does not have answers Unsupported, one that it has does not.";
    settling_out_of_order_keeps_the_earlier_ones[] 4 "Acking later messages does not consume earlier ones.";
    a_nack_delay_is_a_floor[NackDelay] 4 "A message that is nacked with a delay does not come before it is over.";
    attempts_count_deliveries[Attempts Nack] 4 "The attempt is 1 at first and grows with each delivery.";
    confirmations_need_not_be_awaited[] 4 "A settlement whose confirmation is dropped lands all the same.";
}

/// Long enough to be told from no delay.
const DELAY: Duration = Duration::from_millis(300);

async fn acked_messages_never_come_again(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let sent = topic.send_numbers(&publisher, 20).await?;
    inbox.read_exactly(&sent).await?;
    inbox.close().await?;
    let mut again = topic.again().await?.inbox("g").await?;
    again.is_quiet("everything was acked before the subscriber was opened again").await
}

async fn nacked_messages_come_again(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let sent = topic.send_numbers(&publisher, 100).await?;
    let mut nacked = Vec::new();
    for _ in 0..2 {
        let delivery = inbox.next().await?;
        nacked.push(delivery.message().id.clone());
        confirmed(topic.patience, delivery.nack()).await?;
    }
    let read = inbox.read_exactly(&sent).await?;
    ensure!(nacked.iter().all(|id| read.iter().any(|message| message.id == *id)), "a nacked message did not come");
    Ok(())
}

async fn dropped_deliveries_come_again(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let sent = topic.send_numbers(&publisher, 10).await?;
    let held = inbox.hold(10).await?;
    inbox.is_quiet("everything is out").await?;
    drop(held);
    inbox.read_exactly(&sent).await.map(drop)
}

async fn released_messages_come_again(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let sent = topic.send_numbers(&publisher, 5).await?;
    for delivery in inbox.hold(5).await? {
        confirmed(topic.patience, delivery.release()).await?;
    }
    let again = inbox.hold(5).await?;
    let attempts: Vec<_> = again.iter().map(Delivery::attempt).collect();
    let burned = stage.can.attempts && attempts.iter().any(|attempt| *attempt != Some(1));
    ensure!(!burned, "messages that nobody handled come back as attempts {attempts:?}");
    let mut read = Vec::new();
    for delivery in again {
        read.push(delivery.message().clone());
        confirmed(topic.patience, delivery.ack()).await?;
    }
    same(&sent, &read)
}

async fn only_what_is_nacked_comes_again(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send_numbers(&publisher, 3).await?;
    let mut held = inbox.hold(3).await?;
    let last = held.pop().map(|last| (text(last.message()), last));
    for delivery in held {
        confirmed(topic.patience, delivery.ack()).await?;
    }
    let Some((body, last)) = last else { return Ok(()) };
    confirmed(topic.patience, last.nack()).await?;
    let again = inbox.next().await?;
    ensure!(text(again.message()) == body, "`{}` came again, not `{body}`", text(again.message()));
    confirmed(topic.patience, again.ack()).await?;
    inbox.is_quiet("everything is acked").await
}

async fn rejected_messages_do_not_come_again(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send(&publisher, topic.message("hopeless")).await?;
    let answer = within(topic.patience, "settling", inbox.next().await?.reject("on purpose")).await?;
    match answer {
        Ok(()) => inbox.is_quiet("the message was rejected").await,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            let again = inbox.next().await?;
            Ok(confirmed(topic.patience, again.ack()).await?)
        }
        Err(error) => Err(error.into()),
    }
}

async fn unsupported_outcomes_are_honest(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let can = &stage.can;
    type Settle = fn(Delivery) -> mainspring_pubsub::Confirmation;
    let outcomes: [(&str, bool, Settle); 4] = [
        ("ack", true, Delivery::ack),
        ("nack", can.nack, Delivery::nack),
        ("nack with a delay", can.nack_delay, |delivery| delivery.nack_after(DELAY)),
        ("reject", can.reject, |delivery| delivery.reject("on purpose")),
    ];
    for (name, has, settle) in outcomes {
        topic.send(&publisher, topic.message(name)).await?;
        let delivery = inbox.next().await?;
        let started = Instant::now();
        let answer = within(topic.patience, "settling", settle(delivery)).await?;
        let unsupported = matches!(&answer, Err(error) if error.kind() == ErrorKind::Unsupported);
        ensure!(!(has && unsupported), "the broker says that it can {name}, and answers {answer:?}");
        let delays = name.ends_with("delay") && !unsupported;
        // It may do better than it says: delay, say, without holding back the key meanwhile.
        ensure!(has || unsupported || delays, "the broker says that it cannot {name}, and answers {answer:?}");
        if unsupported || name.starts_with("nack") {
            let again = inbox.next().await?;
            let waited = started.elapsed();
            ensure!(text(again.message()) == name, "after a {name}, `{}` came", text(again.message()));
            ensure!(
                !delays || waited >= DELAY,
                "{name} answers {answer:?}, and the delay was {waited:?}, not {DELAY:?}"
            );
            confirmed(topic.patience, again.ack()).await?;
        }
    }
    topic.send(&publisher, topic.message("extended")).await?;
    let delivery = inbox.next().await?;
    let answer = within(topic.patience, "extending", delivery.extend(Duration::from_secs(30))).await?;
    let unsupported = matches!(&answer, Err(error) if error.kind() == ErrorKind::Unsupported);
    // A loan that has no end lasts as long as anybody asks for.
    let endless = delivery.lease().is_none() && answer.is_ok();
    ensure!(endless || unsupported != can.extend, "extend is {}, and answers {answer:?}", can.extend);
    confirmed(topic.patience, delivery.ack()).await
}

async fn settling_out_of_order_keeps_the_earlier_ones(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let sent = topic.send_numbers(&publisher, 10).await?;
    let mut held: BTreeMap<_, _> = inbox.hold(10).await?.into_iter().map(|d| (text(d.message()), d)).collect();
    let acked: Vec<_> = ["9", "5", "7", "3"].into_iter().collect();
    for body in &acked {
        let Some(delivery) = held.remove(*body) else { return Err(Fault::new(format!("`{body}` did not come"))) };
        confirmed(topic.patience, delivery.ack()).await?;
    }
    drop(held);
    inbox.close().await?;
    let left: Vec<_> = sent.into_iter().filter(|message| !acked.contains(&text(message).as_str())).collect();
    let mut again = topic.again().await?.inbox("g").await?;
    again.read_exactly(&left).await.map(drop)
}

async fn a_nack_delay_is_a_floor(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send(&publisher, topic.message("later")).await?;
    let delay = Duration::from_millis(1200);
    let delivery = inbox.next().await?;
    let started = Instant::now();
    confirmed(topic.patience, delivery.nack_after(delay)).await?;
    let again = inbox.next().await?;
    let waited = started.elapsed();
    ensure!(waited >= delay, "it came again after {waited:?}, and the delay was {delay:?}");
    confirmed(topic.patience, again.ack()).await
}

async fn attempts_count_deliveries(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send(&publisher, topic.message("again and again")).await?;
    for expected in 1..=4 {
        let delivery = inbox.next().await?;
        let attempt = delivery.attempt();
        ensure!(attempt == Some(expected), "delivery number {expected} says that it is attempt {attempt:?}");
        let settled = if expected == 4 { delivery.ack() } else { delivery.nack() };
        confirmed(topic.patience, settled).await?;
    }
    Ok(())
}

async fn confirmations_need_not_be_awaited(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send_numbers(&publisher, 20).await?;
    for delivery in inbox.hold(20).await? {
        drop(delivery.ack());
    }
    inbox.close().await?;
    let mut again = topic.again().await?.inbox("g").await?;
    again.is_quiet("everything was acked, though nobody waited for it").await
}
