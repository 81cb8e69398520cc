//! Messages out: idempotent, confirmed by all replicas in sync, never slept for.

mod producer;
mod slots;

use std::fmt;
use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Limits, Receipt};
use mainspring_pubsub::{Error, ErrorKind, Message, MessageId, Position};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::BaseRecord;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::client::{self, Cause, millis};
use crate::error::{error, from_delivery, from_kafka};
use crate::options::Options;
use crate::{SYSTEM, record, startup};
use producer::Producer;
use slots::{Answer, Slots, Ticket, Written};

/// Bytes of body, key and attributes together: what brokers accept by default (1 MiB), less what records add.
const MAX_MESSAGE_BYTES: usize = 1_000_000;
const MAX_ATTRIBUTES: usize = 128;
/// The same for dead letters: as much as a consumer can have received, so that only the topic's own limit remains.
const MAX_LETTER_BYTES: usize = 100_000_000;
/// What a record has besides, headers' framing and the id's header, as far as the client's own limit is concerned.
const FRAMING_BYTES: usize = 40_000;
/// What the client may hold. The publish window is the bound that is meant to be felt.
const CLIENT_QUEUE_KIB: &str = "131072";

/// From this timeout on, nobody minds that the client looks once a second for messages whose time is over.
const COARSE: Duration = Duration::from_secs(5);
/// How soon the client is asked again whether its queue has room, if nothing tells before.
const ROOM_AGAIN: Duration = Duration::from_millis(50);
/// How long a purge may take to have every message answered for.
const PURGE: Duration = Duration::from_millis(500);

pub(crate) struct KafkaPublisher {
    topic: String,
    endpoint: Endpoint,
    limits: Limits,
    producer: Producer,
    slots: Arc<Slots>,
    /// Whether the client's own look at the clock, once a second, is often enough.
    keeps_deadlines: bool,
}

impl KafkaPublisher {
    /// Makes a producer and asks the broker for the topic, on a thread of its own.
    pub(crate) async fn open(options: Options, timeout: Duration) -> Result<Self, Error> {
        let (sender, receiver) = oneshot::channel();
        let opening = move || {
            let opened = Self::connect(&options, timeout, || sender.is_closed());
            // When nobody waits any more, the publisher is closed by its drop.
            let _ = sender.send(opened);
        };
        let spawned = thread::Builder::new().name("kafka-open".to_owned()).spawn(opening);
        spawned.map_err(|cause| error(ErrorKind::Other, "open", "no thread to open with").with_source(cause))?;
        receiver.await.unwrap_or_else(|_| Err(error(ErrorKind::Other, "open", "the opening thread ended early")))
    }

    fn connect(options: &Options, timeout: Duration, given_up: impl Fn() -> bool) -> Result<Self, Error> {
        let (slots, cause) = (Arc::new(Slots::default()), Arc::new(Cause::default()));
        let mut config = config(options);
        config.set("message.timeout.ms", millis(timeout.max(options.linger + Duration::from_secs(1))));
        if let Some(retries) = options.max_retry {
            // Without retries nothing can come twice, or out of order, by the client's doing.
            config.set("retries", retries.to_string()).set("enable.idempotence", (retries > 0).to_string());
        }
        let producer = Producer::open(config, Arc::clone(&slots), Arc::clone(&cause))?;
        // The producer's own thread lets the client say what it has to say.
        startup::check(options, &cause, |step| producer.fetch_metadata(&options.topic, step), || (), given_up)?;
        let mut endpoint = Endpoint::new(SYSTEM, &options.topic);
        endpoint.cluster = Some(producer.cluster(options));
        let (topic, limits) = (options.topic.clone(), options.limits.clone());
        Ok(Self { topic, endpoint, limits, producer, slots, keeps_deadlines: timeout >= COARSE })
    }

    /// Hands a message to the client; while its queue is full, after the next answers.
    async fn send(&self, message: &Message, deadline: Instant) -> Result<Ticket<'_>, Error> {
        if let Some(ticket) = self.try_send(message)? {
            return Ok(ticket);
        }
        let _waiting = self.slots.wait();
        loop {
            let mut room = pin!(self.slots.room.notified());
            // Listen before trying, so that room made in between is not missed.
            room.as_mut().enable();
            if let Some(ticket) = self.try_send(message)? {
                return Ok(ticket);
            }
            // An answer makes room a little later than it wakes us.
            let again = Instant::now() + ROOM_AGAIN;
            if timeout_at(again.min(deadline), room).await.is_err() && again >= deadline {
                let what = "the client's queue stayed full; nothing was sent";
                return Err(error(ErrorKind::Throttled, "publish", what));
            }
        }
    }

    /// `None` when the client's queue is full.
    fn try_send(&self, message: &Message) -> Result<Option<Ticket<'_>>, Error> {
        let (headers, key) = (record::headers(message)?, record::key(message));
        let (number, ticket) = self.slots.reserve();
        let mut record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(&self.topic, number)
            .payload(&message.body[..])
            .timestamp(record::timestamp(message))
            .headers(headers);
        record.key = key.as_deref();
        match self.producer.send(record) {
            Ok(()) => Ok(Some(ticket)),
            Err(cause) => {
                ticket.cancel();
                match cause {
                    KafkaError::MessageProduction(Code::QueueFull) => Ok(None),
                    KafkaError::MessageProduction(Code::Fatal) => {
                        self.producer.replace()?;
                        self.try_send(message)
                    }
                    KafkaError::MessageProduction(code) => Err(from_delivery(code, &self.topic)),
                    cause => Err(from_kafka("publish", cause)),
                }
            }
        }
    }

    fn receipt(&self, id: MessageId, answer: Answer) -> Result<Receipt, Error> {
        let Written { partition, offset } = answer.map_err(|code| from_delivery(code, &self.topic))?;
        let receipt = Receipt::new(id);
        Ok(match (u32::try_from(partition), u64::try_from(offset)) {
            (Ok(partition), Ok(offset)) => receipt.with_position(Position::new(partition, offset)),
            _ => receipt,
        })
    }

    async fn settled(&self, deadline: Instant) -> bool {
        loop {
            let mut idle = pin!(self.slots.idle.notified());
            idle.as_mut().enable();
            if self.slots.unanswered() == 0 {
                return true;
            }
            if timeout_at(deadline, idle).await.is_err() {
                return self.slots.unanswered() == 0;
            }
        }
    }
}

#[async_trait]
impl driver::Publisher for KafkaPublisher {
    /// Not an `async fn`: its future would hold the message, several times over, for as long as it waits. Thousands of them
    /// do, and what they hold is what they cost.
    fn publish<'life, 'publish>(
        &'life self,
        message: Message,
        deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Result<Receipt, Error>> + Send + 'publish>>
    where
        'life: 'publish,
        Self: 'publish,
    {
        // The client answers for every message within the timeout: a timer of ours would only be paid for.
        match self.try_send(&message) {
            Ok(Some(ticket)) => {
                let id = message.id;
                Box::pin(async move { self.receipt(id, ticket.await) })
            }
            Ok(None) => Box::pin(async move {
                let ticket = self.send(&message, deadline).await?;
                match timeout_at(deadline, ticket).await {
                    Ok(answer) => self.receipt(message.id, answer),
                    Err(_) => Err(unconfirmed()),
                }
            }),
            Err(refused) => Box::pin(ready(Err(refused))),
        }
    }

    fn keeps_deadlines(&self) -> bool {
        self.keeps_deadlines
    }

    async fn publish_all(&self, batch: Vec<Message>, deadline: Instant) -> Vec<Result<Receipt, Error>> {
        let mut sent = Vec::with_capacity(batch.len());
        for message in batch {
            let ticket = self.send(&message, deadline).await;
            sent.push((message.id, ticket));
        }
        let mut results = Vec::with_capacity(sent.len());
        for (id, ticket) in sent {
            results.push(match ticket {
                Ok(ticket) => match timeout_at(deadline, ticket).await {
                    Ok(answer) => self.receipt(id, answer),
                    Err(_) => Err(unconfirmed()),
                },
                Err(error) => Err(error),
            });
        }
        results
    }

    fn check(&self, message: &Message) -> Result<(), Error> {
        record::headers(message).map(drop)
    }

    /// At the deadline, what is left is given up: the error counts it, and publishes that still wait for an answer learn
    /// whether theirs was sent.
    async fn flush(&self, deadline: Instant) -> Result<(), Error> {
        if self.settled(deadline).await {
            return Ok(());
        }
        let left = self.slots.unanswered();
        self.producer.purge();
        let answered = self.settled(Instant::now() + PURGE).await;
        let what = match answered {
            true => format!("{left} messages were not confirmed at the deadline and are given up"),
            false => {
                format!("{left} messages were not confirmed at the deadline, and the client does not let go of them")
            }
        };
        Err(error(ErrorKind::Timeout, "flush", what))
    }

    fn capabilities(&self) -> Capabilities {
        crate::capabilities(true, self.limits.clone())
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

impl fmt::Debug for KafkaPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaPublisher").field("topic", &self.topic).field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// Settings of every producer.
pub(crate) fn config(options: &Options) -> ClientConfig {
    let mut config = client::config(options);
    let largest = options.limits.message_bytes.unwrap_or(MAX_LETTER_BYTES) + FRAMING_BYTES;
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", millis(options.linger))
        .set("compression.type", &options.compression)
        // Where Kafka's own clients put a key.
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", largest.to_string())
        .set("queue.buffering.max.kbytes", CLIENT_QUEUE_KIB);
    config
}

/// The limits of messages.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.message_bytes = Some(MAX_MESSAGE_BYTES);
    limits.attributes = Some(MAX_ATTRIBUTES);
    limits
}

/// The limits of dead letters, which have to have room for whatever was received.
pub(crate) fn letter_limits() -> Limits {
    let mut limits = Limits::default();
    limits.message_bytes = Some(MAX_LETTER_BYTES);
    limits
}

fn unconfirmed() -> Error {
    let what = "no confirmation in time; the message may or may not have been published";
    error(ErrorKind::Timeout, "publish", what)
}
