//! The consumer's thread: polls always, fetches as there is room, commits every second, and leaves in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::Error;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::oneshot;
use tracing::info;

use super::anew::Anew;
use super::commits::COMMIT_EVERY;
use super::context::ConsumerCx;
use super::exactly_once::TRANSACT_EVERY;
use super::feed::Feed;
use super::fetch::{self, Queue};
use super::health::Health;
use super::join::Joining;
use super::leave::LEAVE;
use super::state::Fetched;
use super::transactions::Fault;
use super::waiting::Waiting;
use crate::bodies::Bodies;
use crate::client::{self, millis};
use crate::error::{from_creation, from_kafka};
use crate::options::{Options, Protocol, Reset};
use crate::startup;

/// The longest pause between two polls. Something that happens ends it early.
const IDLE: Duration = Duration::from_millis(100);

pub(super) type Opened = oneshot::Sender<Result<(), Error>>;

pub(super) struct Worker<'a> {
    pub(super) feed: &'a Arc<Feed>,
    pub(super) options: &'a Options,
    pub(super) protocol: Protocol,
    pub(super) consumer: Arc<BaseConsumer<ConsumerCx>>,
    pub(super) queues: BTreeMap<i32, Queue>,
    /// A message came past its partition's queue: the queue is to be split off anew.
    pub(super) astray: Vec<i32>,
    /// What was just fetched of one partition.
    pub(super) turn: Vec<Fetched>,
    pub(super) bodies: Bodies,
    pub(super) next_commit: Instant,
    waiting: Waiting,
    /// Until the group has let us in.
    pub(super) joining: Option<Joining>,
    pub(super) health: Health,
}

/// Why a consumer's work ended.
pub(super) enum Ended {
    Stopped(Instant),
    /// The broker does not know the new group protocol.
    TooOld,
    /// Only what is committed tells where to go on.
    InDoubt {
        fenced: bool,
        what: String,
    },
    Failed(Error),
}

/// Works until told to stop, or until something fails for good; tells `opened` as soon as messages published from then
/// on are sure to come.
pub(super) fn run(options: &Options, group: &str, member: Option<&str>, feed: &Arc<Feed>, opened: Opened) {
    feed.worked_by(thread::current());
    let mut opened = Some(opened);
    let mut protocol = match options.protocol {
        Protocol::Classic => Protocol::Classic,
        Protocol::Auto | Protocol::Consumer => Protocol::Consumer,
    };
    let mut anew = Anew::default();
    let failure = loop {
        let ended = match Worker::start(options, (group, member), feed, protocol, opened.as_ref()) {
            Ok(mut worker) => {
                let ended = worker.work(&mut opened);
                if let Ended::Stopped(deadline) = ended {
                    worker.leave(deadline);
                }
                worker.close();
                ended
            }
            Err(error) => Ended::Failed(error),
        };
        match ended {
            Ended::Stopped(_) => break None,
            Ended::TooOld => {
                info!(topic = options.topic, group, "the broker has no `consumer` groups; joining a classic one");
                protocol = Protocol::Classic;
            }
            Ended::InDoubt { fenced, what } => match anew.begin(options, feed, fenced, &what) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            },
            Ended::Failed(error) if opened.is_none() && anew.outlasts(&error) => {
                if !anew.pause(feed, &error) {
                    break None;
                }
            }
            Ended::Failed(error) => break Some(error),
        }
    };
    // Whatever is pending there is ended by the broker, or by the next owner of the name.
    drop(feed.transactions().take());
    match (failure, opened) {
        (Some(failure), Some(opened)) => {
            feed.end(None);
            // Whoever opened may be gone.
            let _ = opened.send(Err(failure));
        }
        (failure, _) => feed.end(failure),
    }
}

impl<'a> Worker<'a> {
    fn start(
        options: &'a Options,
        (group, member): (&str, Option<&str>),
        feed: &'a Arc<Feed>,
        protocol: Protocol,
        opened: Option<&Opened>,
    ) -> Result<Self, Error> {
        let mut config = config(options, group, protocol);
        if let Some(member) = member {
            config.set("group.instance.id", member);
        }
        let context = ConsumerCx::new(Arc::clone(feed), options, group);
        let consumer = BaseConsumer::from_config_and_context(&config, context);
        let mut consumer: BaseConsumer<_> = consumer.map_err(|cause| from_creation(&cause))?;
        consumer.set_nonempty_callback(fetch::waker());
        startup::check(
            options,
            &consumer.context().cause,
            |step| consumer.fetch_metadata(Some(&options.topic), step),
            // Without a subscription there is nothing but what the client has to say.
            || drop(consumer.poll(Duration::ZERO)),
            || opened.is_some_and(Opened::is_closed),
        )?;
        feed.cluster.get_or_init(|| startup::cluster(options, consumer.client()));
        consumer.subscribe(&[&options.topic]).map_err(|cause| from_kafka("subscribe", cause))?;
        let now = Instant::now();
        let (next_commit, waiting) = (now + COMMIT_EVERY, Waiting::new(now));
        let (consumer, queues) = (Arc::new(consumer), BTreeMap::new());
        consumer.context().belongs_to(&consumer);
        Ok(Self {
            feed,
            options,
            protocol,
            consumer,
            queues,
            astray: Vec::new(),
            turn: Vec::new(),
            bodies: Bodies::default(),
            next_commit,
            waiting,
            joining: Some(Joining::new()),
            health: Health::new(),
        })
    }

    fn work(&mut self, opened: &mut Option<Opened>) -> Ended {
        let grace = Instant::now() + self.options.grace;
        loop {
            if let Some(deadline) = self.feed.stopping() {
                return Ended::Stopped(deadline);
            }
            if let Err(ended) = self.poll() {
                return ended;
            }
            self.join();
            self.look_after();
            // A group that begins with what is new has a position only once it has its partitions; who has to
            // wait for the others of its group will not be kept waiting for that.
            let begun = self.options.reset == Reset::Earliest || self.consumer.context().joined.load(Relaxed);
            if (begun || Instant::now() >= grace)
                && let Some(opened) = opened.take()
                && opened.send(Ok(())).is_err()
            {
                return Ended::Stopped(Instant::now() + LEAVE);
            }
            let fetched = self.fetch();
            self.waiting.look(Instant::now(), self.feed, &self.options.topic, &self.consumer.context().consumed);
            if self.feed.is_transactional() {
                if let Err(ended) = self.transact() {
                    return ended;
                }
            } else {
                self.commit();
            }
            if !fetched {
                let pause = if self.feed.is_transactional() { TRANSACT_EVERY } else { IDLE };
                thread::park_timeout(pause);
            }
        }
    }
}

/// Settings of a consumer.
fn config(options: &Options, group: &str, protocol: Protocol) -> ClientConfig {
    let mut config = client::config(options);
    config
        .set("group.id", group)
        // Handed out is not handled: positions are committed here, and nowhere else.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", if options.reset == Reset::Latest { "latest" } else { "earliest" })
        .set("statistics.interval.ms", "1000");
    fetch::configure(&mut config);
    if let Some(timeout) = options.rebalance_timeout {
        config.set("max.poll.interval.ms", millis(timeout));
    }
    if let Some(rack) = &options.rack {
        config.set("client.rack", rack);
    }
    if protocol == Protocol::Consumer {
        config.set("group.protocol", "consumer");
    } else {
        config.set("group.protocol", "classic").set("partition.assignment.strategy", "range");
        if let Some(timeout) = options.session_timeout {
            config.set("session.timeout.ms", millis(timeout)).set("heartbeat.interval.ms", millis(timeout / 10));
        }
    }
    config
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unclear { fenced, what } => Self::InDoubt { fenced, what },
            Fault::Final(error) => Self::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use mainspring_pubsub::KafkaConfig;
    use mainspring_pubsub::driver::Url;

    use super::*;

    #[test]
    fn a_rack_is_passed_on_and_none_is_made_up() {
        let rack = |url: &str| {
            let config = KafkaConfig { brokers: vec!["one:1".to_owned()], ..KafkaConfig::default() };
            let options = Options::new(&Url::parse(url).unwrap(), &config).unwrap();
            super::config(&options, "g", Protocol::Consumer).get("client.rack").map(str::to_owned)
        };
        assert_eq!(rack("kafka://orders?group=g&rack=eu-west-1a").as_deref(), Some("eu-west-1a"));
        assert_eq!(rack("kafka://orders?group=g"), None);
    }
}
