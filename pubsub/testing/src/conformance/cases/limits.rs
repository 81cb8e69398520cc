//! What a broker does not accept, and what does not exist.

use mainspring_daemon::Chain;
use mainspring_pubsub::{Error, ErrorKind, Message};

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, Topic, within};

table! {
    a_message_over_the_limit_is_refused[MessageLimit] 3 "A message that is too large is refused as such before anything is sent; the largest one is not.";
    a_key_over_the_limit_is_refused[KeyLimit] 3 "A key that is too long is refused as such before anything is sent.";
    too_many_attributes_are_refused[AttributeLimit] 3 "A message with too many attributes is refused as such before anything is sent.";
    one_bad_entry_fails_alone[MessageLimit] 3 "In a batch, entries that are refused do not fail their neighbours.";
    unknown_options_are_refused[] 3 "An option that the broker does not know is a configuration error that names it.";
    checking_a_url_agrees_with_opening_it[] 3 "What can be told from a URL alone refuses none that opens, and is a configuration error.";
    errors_hide_credentials[] 3 "What may be a password in a URL is in no error.";
    publishing_to_a_missing_topic_fails[MissingTopic NoNewTopics] 3 "Publishing to a topic that does not exist says so, in time.";
    receiving_from_a_missing_topic_fails[MissingTopic] 3 "Receiving from a topic that does not exist says so, in time.";
}

async fn a_message_over_the_limit_is_refused(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let limit = stage.can.limits.message_bytes.unwrap_or(0);
    let own = topic.message("").size();
    let largest = topic.message(vec![b'x'; limit.saturating_sub(own)]);
    ensure!(largest.size() == limit, "the suite counts wrong");
    refused(&topic, topic.message(vec![b'x'; limit - own + 1])).await?;
    accepted(&topic, largest).await
}

async fn a_key_over_the_limit_is_refused(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let limit = stage.can.limits.key_bytes.unwrap_or(0);
    refused(&topic, topic.message("").with_key("k".repeat(limit + 1))).await?;
    accepted(&topic, topic.message("longest").with_key("k".repeat(limit))).await
}

async fn too_many_attributes_are_refused(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let limit = stage.can.limits.attributes.unwrap_or(0);
    let with = |count: usize| {
        let own = topic.message("").attributes.len();
        (own..count).fold(topic.message("attributes"), |message, n| message.with_attribute(format!("a{n}"), "v"))
    };
    refused(&topic, with(limit + 1)).await?;
    accepted(&topic, with(limit)).await
}

async fn one_bad_entry_fails_alone(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    let limit = stage.can.limits.message_bytes.unwrap_or(0);
    let bad = [3, 7];
    let body = |n: usize| if bad.contains(&n) { vec![b'x'; limit + 1] } else { n.to_string().into_bytes() };
    let messages: Vec<_> = (0..10).map(|n| topic.message(body(n))).collect();
    let results = within(topic.patience, "publishing", publisher.publish_all(messages.clone())).await?;
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(_) => ensure!(!bad.contains(&n), "entry {n} is over the limit and was accepted"),
            Err(error) => ensure!(bad.contains(&n), "entry {n} failed with its neighbours: {error}"),
        }
    }
    let good: Vec<_> = messages.into_iter().enumerate().filter(|(n, _)| !bad.contains(n)).map(|(_, m)| m).collect();
    inbox.read_exactly(&good).await.map(drop)
}

async fn unknown_options_are_refused(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let join = if topic.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{join}nonsense=1", topic.url);
    for error in open(&topic, &url).await? {
        let Some(error) = error else { return Err(Fault::new("the option `nonsense` was accepted")) };
        ensure!(error.kind() == ErrorKind::Config, "it is refused as {:?}", error.kind());
        let said = Chain(&error).to_string();
        ensure!(said.contains("nonsense"), "the error does not name the option: {said}");
    }
    Ok(())
}

async fn checking_a_url_agrees_with_opening_it(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let brokers = topic.brokers();
    for url in [topic.url.clone(), topic.group("g")] {
        if let Err(error) = brokers.check(&url) {
            return Err(Fault::new(format!("a URL that can be opened is refused: {}", Chain(&error))));
        }
    }
    let join = if topic.url.contains('?') { '&' } else { '?' };
    // A driver may leave every fault to be found by opening.
    if let Err(error) = brokers.check(&format!("{}{join}nonsense=1", topic.url)) {
        ensure!(error.kind() == ErrorKind::Config, "a wrong URL is refused as {:?}", error.kind());
        let said = Chain(&error).to_string();
        ensure!(said.contains("nonsense"), "the error does not name the option: {said}");
    }
    Ok(())
}

async fn errors_hide_credentials(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let join = if topic.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{join}password=hunter2&nonsense=1", topic.url);
    for error in open(&topic, &url).await? {
        let Some(error) = error else { return Err(Fault::new("the option `nonsense` was accepted")) };
        let said = format!("{} {error:?}", Chain(&error));
        ensure!(!said.contains("hunter2"), "the error shows the password");
    }
    Ok(())
}

async fn publishing_to_a_missing_topic_fails(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let url = stage.backend.missing_topic().map_err(Fault::new)?;
    let publish = async { topic.brokers().publisher(&url).await?.publish(Message::new("")).await.map(drop) };
    not_found(within(topic.patience * 2, "the error", publish).await?.err())
}

async fn receiving_from_a_missing_topic_fails(stage: Stage) -> Result<(), Fault> {
    let topic = stage.topic().await?;
    let url = stage.backend.group(&stage.backend.missing_topic().map_err(Fault::new)?, "conformance");
    let receive = async { topic.brokers().subscriber(&url).await?.next().await.map(drop) };
    not_found(within(topic.patience * 2, "the error", receive).await?.err())
}

fn not_found(error: Option<Error>) -> Result<(), Fault> {
    let Some(error) = error else { return Err(Fault::new("there was no error")) };
    ensure!(error.kind() == ErrorKind::NotFound, "the error is {:?}, not NotFound: {error}", error.kind());
    Ok(())
}

/// The errors of opening a publisher and a subscriber.
async fn open(topic: &Topic, url: &str) -> Result<[Option<Error>; 2], Fault> {
    let publisher = within(topic.patience, "opening", topic.brokers().publisher(url)).await?.err();
    let subscriber = within(topic.patience, "opening", topic.brokers().subscriber(url)).await?.err();
    Ok([publisher, subscriber])
}

async fn refused(topic: &Topic, message: Message) -> Result<(), Fault> {
    let mut inbox = topic.inbox("refused").await?;
    let publisher = topic.publisher().await?;
    match within(topic.patience, "publishing", publisher.publish(message)).await? {
        Ok(_) => return Err(Fault::new("a message over the limit was accepted")),
        Err(error) => {
            ensure!(error.kind() == ErrorKind::TooLarge, "it is refused as {:?}: {error}", error.kind());
            ensure!(!error.is_retryable(), "the error says that trying again may help");
        }
    }
    inbox.is_quiet("the message was refused").await
}

async fn accepted(topic: &Topic, message: Message) -> Result<(), Fault> {
    let (mut inbox, publisher) = (topic.inbox("accepted").await?, topic.publisher().await?);
    topic.send(&publisher, message.clone()).await?;
    // The group may have seen nothing else, but a shared topic keeps what other cases left.
    let got = inbox.next().await?;
    ensure!(got.message().body == message.body && got.message().key == message.key, "another message came");
    got.ack().await?;
    Ok(())
}
