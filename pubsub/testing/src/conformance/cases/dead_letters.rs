//! What is given up.

use std::collections::BTreeMap;
use std::time::Duration;

use mainspring_pubsub::{Backoff, Failure, Message, Policy, Router};
use tokio::sync::mpsc;

use super::router::{drain, panics};
use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, confirmed, text};

table! {
    poison_does_not_harm_its_neighbours[Topics] 6 "Among good messages, ones that cannot be read, fail, panic or hang become dead letters as they were; the good ones are handled in order.";
    the_largest_message_becomes_a_dead_letter[Topics MessageLimit] 4 "A message as large as the broker takes can be given up, and its dead letter is what it was.";
}

async fn poison_does_not_harm_its_neighbours(stage: Stage) -> Result<(), Fault> {
    let (topic, dead) = (stage.topic().await?, stage.topic().await?);
    let (seen, mut log) = mpsc::unbounded_channel();
    let mut letters = topic.reads(dead.subscriber("letters").await?);
    let handler = move |message: Message, json: mainspring_pubsub::Json<u32>| {
        let seen = seen.clone();
        async move {
            match json.0 {
                1_000_001 => return Err("always fails".into()),
                1_000_002 => panics(),
                1_000_003 => std::future::pending().await,
                1_000_004 => return Err(Failure::reject("no use")),
                _ => {}
            }
            seen.send(message).ok();
            Ok::<_, Failure>(())
        }
    };
    let policy = Policy::default().attempts(3).timeout(Duration::from_millis(200));
    let policy = policy.backoff(Backoff::fixed(Duration::from_millis(10)));
    let to = dead.publisher().await?;
    let router = Router::new().route("poison", topic.subscriber("g").await?, handler).policy(policy).dead_letter(to);
    let router = topic.start(router);
    let publisher = topic.publisher().await?;
    let bad = [
        ("not JSON \u{0}", "cannot read the body"),
        ("1000001", "always fails"),
        ("1000002", "panicked"),
        ("1000003", "took longer than"),
        ("1000004", "no use"),
    ];
    let count = stage.size(200, 1000);
    let mut sent = BTreeMap::new();
    for n in 0..count {
        if n % 40 == 7 && n / 40 < bad.len() {
            let poison = topic.message(bad[n / 40].0).with_key(format!("k{}", n % 10)).with_attribute("note", "☺ =");
            sent.insert(poison.id.clone(), poison.clone());
            topic.send(&publisher, poison).await?;
        }
        topic.send(&publisher, topic.message(n.to_string()).with_key(format!("k{}", n % 10))).await?;
    }
    let mut last = BTreeMap::<_, i64>::new();
    for message in drain(&topic, &mut log, count).await? {
        let n = text(&message).parse().unwrap_or(-1);
        let before = last.insert(message.key.clone(), n).unwrap_or(-1);
        ensure!(before < n, "{n} was handled after {before}, of key {:?}", message.key);
    }
    for _ in 0..bad.len() {
        let delivery = letters.next().await?;
        let letter = delivery.message();
        let Some(original) = sent.remove(&letter.id) else {
            return Err(Fault::new("an unknown or second dead letter"));
        };
        let body = text(&original);
        ensure!(
            letter.body == original.body && letter.key == original.key,
            "the dead letter of `{body}` is not as it was"
        );
        ensure!(letter.attributes.get("note").map(String::as_str) == Some("☺ ="), "`{body}` lost its attributes");
        let expected = if body.starts_with("not") || body == "1000004" { "1" } else { "3" };
        let attempts = letter.attributes.get("dead-letter-attempts").map(String::as_str);
        ensure!(attempts == Some(expected), "`{body}` says that it was tried {attempts:?} times, not {expected}");
        let note = |what: &str| letter.attributes.get(&format!("dead-letter-{what}")).map_or("", String::as_str);
        let (_, why) = bad.iter().find(|(bad, _)| *bad == body).copied().unwrap_or_default();
        ensure!(note("reason").contains(why), "the dead letter of `{body}` says `{}`, not `{why}`", note("reason"));
        ensure!(note("route") == "poison", "the dead letter of `{body}` is of the route `{}`", note("route"));
        ensure!(!note("source").is_empty(), "the dead letter of `{body}` does not say what it was received from");
        let positions = delivery.position().is_some();
        ensure!(positions != note("position").is_empty(), "the dead letter of `{body}` was at `{}`", note("position"));
        delivery.ack().await?;
    }
    router.stop().await;
    topic.inbox("g").await?.is_quiet("everything was handled or is a dead letter").await
}

async fn the_largest_message_becomes_a_dead_letter(stage: Stage) -> Result<(), Fault> {
    let (topic, dead) = (stage.topic().await?, stage.topic().await?);
    let mut letters = topic.reads(dead.subscriber("letters").await?);
    let own = topic.clone();
    let handler = move |message: Message| {
        let own = own.owns(&message);
        async move { if own { Err(Failure::reject("too much to handle")) } else { Ok(()) } }
    };
    let router = Router::new().route("large", topic.subscriber("g").await?, handler);
    let router = topic.start(router.dead_letter(dead.publisher().await?));
    let limit = stage.can.limits.message_bytes.unwrap_or(0);
    let room = limit.saturating_sub(topic.message("").size());
    let largest = topic.message(vec![b'x'; room]);
    topic.send(&topic.publisher().await?, largest.clone()).await?;
    let delivery = letters.next().await?;
    let letter = delivery.message();
    ensure!(letter.id == largest.id, "another message became a dead letter");
    ensure!(letter.body == largest.body, "the dead letter has {} bytes of {room}", letter.body.len());
    confirmed(topic.patience, delivery.ack()).await?;
    router.stop().await;
    Ok(())
}
