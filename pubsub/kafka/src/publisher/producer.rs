//! The client that publishes. One that has failed for good is replaced.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::{Error, ErrorKind};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use tracing::error;

use super::slots::{Slots, Written};
use crate::client::{self, Cause};
use crate::error::{error, from_creation};
use crate::options::Options;
use crate::startup;

/// The least time between two clients: when each fails at once, the fault is elsewhere.
const REPLACE_EVERY: Duration = Duration::from_secs(1);

type Client = ThreadedProducer<ProducerCx>;

/// A client of our own making, with what it takes to make another.
pub(super) struct Producer {
    config: ClientConfig,
    slots: Arc<Slots>,
    cause: Arc<Cause>,
    current: RwLock<Current>,
}

struct Current {
    /// `None` once dropped.
    client: Option<Client>,
    since: Instant,
}

/// What the client calls back.
struct ProducerCx {
    slots: Arc<Slots>,
    cause: Arc<Cause>,
}

impl Producer {
    pub(super) fn open(config: ClientConfig, slots: Arc<Slots>, cause: Arc<Cause>) -> Result<Self, Error> {
        let client = start(&config, &slots, &cause)?;
        let current = RwLock::new(Current { client: Some(client), since: Instant::now() });
        Ok(Self { config, slots, cause, current })
    }

    /// Hands a message to the client. [`Code::Fatal`] is answered when it will never take one again.
    pub(super) fn send(&self, record: BaseRecord<'_, [u8], [u8], usize>) -> KafkaResult<()> {
        match &self.read().client {
            Some(client) => client.send(record).map_err(|(cause, _record)| cause),
            None => Err(KafkaError::Canceled),
        }
    }

    /// Replaces a client that has failed for good: when the broker has lost track of what the client had sent, for
    /// example. What it held is answered for, as far as that is known.
    pub(super) fn replace(&self) -> Result<(), Error> {
        let mut current = self.write();
        let fatal = current.client.as_ref().and_then(|client| client.client().fatal_error());
        // Somebody else may have been here first.
        let Some((code, text)) = fatal else { return Ok(()) };
        if current.since.elapsed() < REPLACE_EVERY {
            let what = format!("the client fails again and again: {code}: {text}");
            return Err(error(ErrorKind::Unavailable, "publish", what));
        }
        error!(system = crate::SYSTEM, %code, text, "the client that publishes failed for good and is replaced");
        let new = start(&self.config, &self.slots, &self.cause)?;
        let old = std::mem::replace(&mut *current, Current { client: Some(new), since: Instant::now() });
        drop(current);
        close(old.client);
        Ok(())
    }

    pub(super) fn fetch_metadata(&self, topic: &str, timeout: Duration) -> KafkaResult<Metadata> {
        match &self.read().client {
            Some(client) => client.client().fetch_metadata(Some(topic), timeout),
            None => Err(KafkaError::Canceled),
        }
    }

    /// What tells the brokers' cluster from others.
    pub(super) fn cluster(&self, options: &Options) -> String {
        match &self.read().client {
            Some(client) => startup::cluster(options, client.client()),
            None => options.brokers.clone(),
        }
    }

    /// Gives up everything that has no answer yet.
    pub(super) fn purge(&self) {
        if let Some(client) = &self.read().client {
            client.purge(PurgeConfig::default().queue().inflight());
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Current> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Producer {
    /// Gives up what was not flushed.
    fn drop(&mut self) {
        close(self.write().client.take());
    }
}

fn start(config: &ClientConfig, slots: &Arc<Slots>, cause: &Arc<Cause>) -> Result<Client, Error> {
    let context = ProducerCx { slots: Arc::clone(slots), cause: Arc::clone(cause) };
    ThreadedProducer::from_config_and_context(config, context).map_err(|cause| from_creation(&cause))
}

/// Closes a client. It takes up to a second for that, which is no time to take from a runtime's thread.
fn close(client: Option<Client>) {
    // Without a thread the drop happens here: slow, and as good.
    let _ = thread::Builder::new().name("kafka-close".to_owned()).spawn(move || drop(client));
}

impl ClientContext for ProducerCx {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client::log(level, facility, text);
    }

    fn error(&self, cause: KafkaError, reason: &str) {
        self.cause.note(&cause, reason);
    }
}

impl ProducerContext for ProducerCx {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let answer = match result {
            Ok(record) => Ok(Written { partition: record.partition(), offset: record.offset() }),
            Err((cause, _record)) => Err(cause.rdkafka_error_code().unwrap_or(Code::Fail)),
        };
        self.slots.answer(number, answer);
    }
}
