//! What is in a message comes out as it went in, or is refused.

use mainspring_observe::correlation::{self, Correlation};
use mainspring_observe::trace::TraceContext;
use mainspring_pubsub::{ErrorKind, Message, Publisher};

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Inbox, Stage, Topic, text, within};

/// Texts that brokers, encodings and headers like to trip over.
const WEIRD: [&str; 17] = [
    "/",
    "\\",
    "../",
    "\"'`",
    " ",
    "  a  ",
    "\t",
    "\n",
    "\r\n",
    "1leading",
    "☺☺☺",
    "\u{feff}",
    "e\u{301}",
    "%20%2F",
    "<&>",
    "a=b;c,d",
    "null",
];

table! {
    ids_keys_and_times_are_kept[] 3 "A delivery shows the id, the key and the time of its message.";
    bodies_are_exact[] 3 "Bodies come out byte for byte: empty, JSON, text of all sorts, bytes that are no UTF-8.";
    attributes_are_exact_or_refused[] 4 "Attributes come out byte for byte, names too, or are refused at publish.";
    keys_are_exact_or_refused[] 3 "Keys come out byte for byte, or are refused at publish.";
    trace_context_survives[] 3 "The traceparent of a message survives, and one is added to a message published in a trace.";
}

async fn ids_keys_and_times_are_kept(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let foreign = topic.message("foreign").with_id("order 42/☺").with_key("k");
    for sent in [topic.message("plain"), topic.message("keyed").with_key("A1"), foreign] {
        let receipt = within(topic.patience, "publishing", publisher.publish(sent.clone())).await??;
        ensure!(receipt.id == sent.id, "the receipt is for {}, not for {}", receipt.id, sent.id);
        let delivery = inbox.next().await?;
        let got = delivery.message();
        ensure!(got.id == sent.id, "the id {} came as {}", sent.id, got.id);
        ensure!(got.key == sent.key, "the key {:?} came as {:?}", sent.key, got.key);
        let apart = got.published_at.duration_since(sent.published_at).unwrap_or_else(|error| error.duration());
        ensure!(apart.as_secs() < 60, "the time of publishing is {apart:?} off");
        if let (Some(receipt), Some(position)) = (receipt.position, delivery.position()) {
            ensure!(receipt == position, "the receipt says position {receipt}, the delivery {position}");
        }
        delivery.ack().await?;
    }
    Ok(())
}

async fn bodies_are_exact(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let mut bodies: Vec<Vec<u8>> = WEIRD.iter().map(|body| body.as_bytes().to_vec()).collect();
    bodies.push(Vec::new());
    bodies.push(br#"{"id": "A1",  "quantity": 2.50, "note": "\u00e9"}"#.to_vec());
    bodies.push((0..=255).collect());
    bodies.push(b"\xff\xfe\xc0\x80 not UTF-8 \xed\xa0\x80".to_vec());
    bodies.push(vec![b'x'; 60_000]);
    for body in bodies {
        let sent = topic.message(body.clone());
        topic.send(&publisher, sent.clone()).await?;
        let delivery = inbox.next().await?;
        let got = delivery.message();
        let (shown, came) = (sent.body.escape_ascii(), got.body.escape_ascii());
        ensure!(got.body == sent.body, "the body `{shown:.60}` came as `{came:.60}`");
        delivery.ack().await?;
    }
    Ok(())
}

async fn attributes_are_exact_or_refused(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let punctuation: Vec<char> = (0..128_u8).map(char::from).filter(|c| !c.is_ascii_alphanumeric()).collect();
    let chunks = punctuation.chunks(punctuation.len().div_ceil(8)).map(|chunk| chunk.iter().collect::<String>());
    let weird: Vec<String> = WEIRD.iter().map(|text| (*text).to_owned()).chain(chunks).collect();
    for text in &weird {
        for message in [
            topic.message("name").with_attribute(text.as_str(), "value"),
            topic.message("value").with_attribute("name", text.as_str()),
        ] {
            exact_or_refused(&topic, &publisher, &mut inbox, message).await?;
        }
    }
    let mut plain = topic.message("plain").with_attribute("empty", "");
    for n in 0..8 {
        plain = plain.with_attribute(format!("name-{n}"), format!("Value {n}"));
    }
    let refused = exact_or_refused(&topic, &publisher, &mut inbox, plain).await?;
    ensure!(!refused, "nine plain attributes were refused");
    let nameless = topic.message("nameless").with_attribute("", "value");
    match within(topic.patience, "publishing", publisher.publish(nameless)).await? {
        Err(error) if error.kind() == ErrorKind::Invalid => Ok(()),
        Err(error) => Err(Fault::new(format!("an attribute without a name is refused as {:?}", error.kind()))),
        Ok(_) => Err(Fault::new("an attribute without a name is accepted")),
    }
}

async fn keys_are_exact_or_refused(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    for key in WEIRD.iter().copied().chain(["", "A1"]) {
        exact_or_refused(&topic, &publisher, &mut inbox, topic.message("keyed").with_key(key)).await?;
    }
    Ok(())
}

/// Whether the message was refused; an error when it came out other than it went in.
async fn exact_or_refused(
    topic: &Topic,
    publisher: &Publisher,
    inbox: &mut Inbox,
    message: Message,
) -> Result<bool, Fault> {
    let sent = (message.key.clone(), Topic::attributes(&message));
    match within(topic.patience, "publishing", publisher.publish(message)).await? {
        Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge) => return Ok(true),
        Err(error) => return Err(Fault::new(format!("{sent:?} was refused, but not as invalid: {error:?}"))),
        Ok(_) => {}
    }
    let delivery = inbox.next().await?;
    let got = (delivery.message().key.clone(), Topic::attributes(delivery.message()));
    ensure!(got == sent, "key and attributes {sent:?} came as {got:?}");
    delivery.ack().await?;
    Ok(false)
}

async fn trace_context_survives(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    topic.send(&publisher, topic.message("given").with_attribute("traceparent", given)).await?;
    let trace = TraceContext::new();
    let correlation = Correlation { trace: Some(trace), request_id: None };
    let sending = publisher.publish(topic.message("added"));
    within(topic.patience, "publishing", correlation::scope(correlation, sending)).await??;
    let added = String::from_utf8_lossy(&trace.traceparent()).into_owned();
    for _ in 0..2 {
        let delivery = inbox.next().await?;
        let expected = if text(delivery.message()) == "given" { given } else { added.as_str() };
        let got = delivery.message().attributes.get("traceparent").map(String::as_str);
        ensure!(got == Some(expected), "the traceparent {expected} came as {got:?}");
        delivery.ack().await?;
    }
    Ok(())
}
