//! Making and removing topics, and removing groups: for tests, tools and dead letters.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mainspring_pubsub::{Error, ErrorKind};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication, TopicResult};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::client::{self, Cause};
use crate::error::{error, from_creation, from_kafka, kind};
use crate::options::Options;
use crate::startup;

/// So many partitions and replicas as the broker gives to topics about which nobody has said anything.
const BROKERS_CHOICE: i32 = -1;
const LARGEST: &str = "max.message.bytes";
/// How long it may take to see why nobody answers, and how long to be told.
const WITNESS: Duration = Duration::from_millis(500);
/// How soon to ask again whether the last member has left.
const LEAVING: Duration = Duration::from_millis(100);

/// A client for administration, which takes a tenth of a second to drop.
struct Admin(Option<AdminClient<AdminCx>>);

struct AdminCx;

/// Hears why a connection does not come about.
struct Witness(Arc<Cause>);

/// Makes the topic. `largest` is how many bytes its messages may have, if not as many as the broker lets most topics have.
pub(crate) async fn create(options: &Options, largest: Option<u32>) -> Result<(), Error> {
    let admin = Admin::open(options)?;
    let largest = largest.map(|bytes| bytes.to_string());
    let mut topic = NewTopic::new(&options.topic, BROKERS_CHOICE, TopicReplication::Fixed(BROKERS_CHOICE));
    if let Some(largest) = &largest {
        topic = topic.set(LARGEST, largest);
    }
    let made = admin.client()?.create_topics([&topic], &limits(options)).await;
    done("create topic", &options.topic, options, made).await
}

/// Whether a broker says that there is no such topic. A producer's question would have some brokers make it.
pub(crate) async fn is_missing(options: &Options) -> bool {
    let (config, topic, grace) = (client::config(options), options.topic.clone(), options.grace);
    let (sender, answer) = oneshot::channel();
    // The client only waits by blocking, and takes a moment to drop.
    let ask = move || {
        let client = config.create_with_context::<_, BaseConsumer<_>>(AdminCx);
        let metadata = client.as_ref().ok().and_then(|client| client.fetch_metadata(Some(&topic), grace).ok());
        let found = metadata.map(|metadata| startup::look_up(&metadata, &topic));
        // Whoever asked may be gone.
        let _ = sender.send(matches!(found, Some(Err(Code::UnknownTopicOrPartition | Code::UnknownTopic))));
    };
    let asked = thread::Builder::new().name("kafka-open".to_owned()).spawn(ask);
    asked.is_ok() && answer.await.unwrap_or_default()
}

/// How many bytes messages of `topic` may have, where it has a limit of its own that can be seen.
pub(crate) async fn own_limit(options: &Options, topic: &str) -> Option<u32> {
    let admin = Admin::open(options).ok()?;
    let described = admin.client().ok()?.describe_configs(&[ResourceSpecifier::Topic(topic)], &limits(options)).await;
    let described = described.ok()?.pop()?.ok()?;
    let limit = described.get(LARGEST).filter(|limit| !limit.is_default)?;
    limit.value.as_ref()?.parse().ok()
}

/// Removes a group, with what it has committed. Members that have just left may still be counted for a moment.
pub(crate) async fn delete_group(options: &Options, group: &str) -> Result<(), Error> {
    let admin = Admin::open(options)?;
    let since = Instant::now();
    loop {
        let removed = admin.client()?.delete_groups(&[group], &limits(options)).await;
        match removed.as_deref() {
            Ok([Err((_, Code::GroupIdNotFound))]) => return Ok(()),
            Ok([Err((_, Code::NonEmptyGroup))]) if since.elapsed() < options.grace => sleep(LEAVING).await,
            _ => return done("delete group", group, options, removed).await,
        }
    }
}

/// Removes the topic, with what is in it.
pub(crate) async fn delete(options: &Options) -> Result<(), Error> {
    let admin = Admin::open(options)?;
    let removed = admin.client()?.delete_topics(&[options.topic.as_str()], &limits(options)).await;
    done("delete topic", &options.topic, options, removed).await
}

fn limits(options: &Options) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(options.grace)).operation_timeout(Some(options.grace))
}

async fn done(
    operation: &'static str,
    of: &str,
    options: &Options,
    result: KafkaResult<Vec<TopicResult>>,
) -> Result<(), Error> {
    let failed = |code: Code| error(kind(code), operation, format!("`{of}`: {code}"));
    match result {
        Ok(results) => results.into_iter().try_for_each(|result| result.map(drop).map_err(|(_, code)| failed(code))),
        Err(KafkaError::AdminOp(Code::OperationTimedOut | Code::RequestTimedOut)) => {
            let options = options.clone();
            let why = spawn_blocking(move || why_unanswered(&options)).await;
            Err(why.unwrap_or_else(|_| error(ErrorKind::Timeout, operation, "no answer in time")))
        }
        Err(other) => Err(from_kafka(operation, other)),
    }
}

/// Why nobody answers. A client for administration keeps to itself what happens to its connections, so another is asked.
fn why_unanswered(options: &Options) -> Error {
    let cause = Arc::new(Cause::default());
    match client::config(options).create_with_context::<_, BaseProducer<_>>(Witness(Arc::clone(&cause))) {
        Ok(client) => {
            let _ = client.client().fetch_metadata(None, WITNESS);
            client.poll(WITNESS);
            cause.error(&options.brokers)
        }
        Err(cause) => from_creation(&cause),
    }
}

impl Admin {
    fn open(options: &Options) -> Result<Self, Error> {
        let client = AdminClient::from_config_and_context(&client::config(options), AdminCx);
        Ok(Self(Some(client.map_err(|cause| from_creation(&cause))?)))
    }

    fn client(&self) -> Result<&AdminClient<AdminCx>, Error> {
        self.0.as_ref().ok_or_else(|| error(ErrorKind::Closed, "open", "the client is closed"))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let client = self.0.take();
        // Without a thread the drop happens here: slow, and as good.
        let _ = thread::Builder::new().name("kafka-close".to_owned()).spawn(move || drop(client));
    }
}

impl ClientContext for AdminCx {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client::log(level, facility, text);
    }
}

impl ConsumerContext for AdminCx {}

impl ClientContext for Witness {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client::log(level, facility, text);
    }

    fn error(&self, cause: KafkaError, reason: &str) {
        self.0.note(&cause, reason);
    }
}

impl ProducerContext for Witness {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, (): ()) {}
}
