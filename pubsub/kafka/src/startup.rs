//! The first contact: is there a broker, does it know us, and does it have the topic?

use std::time::{Duration, Instant};

use mainspring_pubsub::{Error, ErrorKind};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;

use crate::client::Cause;
use crate::error::{error, kind};
use crate::options::Options;

/// How long one question may take. Short, since the client only says what is wrong between two of them.
const STEP: Duration = Duration::from_millis(250);
/// How long the client may take to say what it has been told already.
const CLUSTER: Duration = Duration::from_secs(2);
/// The pause before a topic that is missing is asked for again: it may be in the making.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks for the topic until there is an answer, or until the grace is over; the error then names the last cause.
///
/// `ask` asks once, with a time limit; `poll` lets the client say what it has to say; `given_up` tells when nobody waits
/// for the answer any more.
pub(crate) fn check(
    options: &Options,
    cause: &Cause,
    ask: impl Fn(Duration) -> KafkaResult<Metadata>,
    poll: impl Fn(),
    given_up: impl Fn() -> bool,
) -> Result<(), Error> {
    let end = Instant::now() + options.grace;
    loop {
        let answer = ask(STEP);
        poll();
        let missing = match answer {
            Ok(metadata) => match look_up(&metadata, &options.topic) {
                Ok(()) => return Ok(()),
                Err(code) if kind(code) == ErrorKind::PermissionDenied => {
                    let what = format!("topic `{}`: {code}", options.topic);
                    return Err(error(ErrorKind::PermissionDenied, "connect", what));
                }
                Err(code) => Some(code),
            },
            Err(_) => None,
        };
        if let Some(refused) = cause.refused() {
            return Err(refused);
        }
        if Instant::now() >= end || given_up() {
            return Err(match missing {
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                    let what = format!("there is no topic `{}` at {}", options.topic, options.brokers);
                    error(ErrorKind::NotFound, "connect", what)
                }
                Some(code) => error(ErrorKind::Unavailable, "connect", format!("topic `{}`: {code}", options.topic)),
                None => cause.error(&options.brokers),
            });
        }
        if missing.is_some() {
            std::thread::sleep(PAUSE);
        }
    }
}

/// What tells the brokers' cluster from others; asked for once brokers have answered.
pub(crate) fn cluster<C: ClientContext>(options: &Options, client: &Client<C>) -> String {
    client.fetch_cluster_id(CLUSTER).unwrap_or_else(|| options.brokers.clone())
}

/// Whether the topic is there: errors about it come inside of an answer that is none itself.
pub(crate) fn look_up(metadata: &Metadata, topic: &str) -> Result<(), Code> {
    let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or(Code::UnknownTopicOrPartition)?;
    match found.error() {
        Some(code) => Err(code.into()),
        None if found.partitions().is_empty() => Err(Code::UnknownTopicOrPartition),
        None => Ok(()),
    }
}
