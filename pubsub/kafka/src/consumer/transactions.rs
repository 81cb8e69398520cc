//! Transactions: what handlers have left is published, and positions are committed, in one step.
//!
//! Everything here blocks, and runs on the consumer's own thread.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::{Error, ErrorKind};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::batch::Batch;
use super::context::ConsumerCx;
use crate::client::{self, Cause, millis};
use crate::error::{error, from_creation, from_delivery, kind};
use crate::instance::Claim;
use crate::options::Options;
use crate::{publisher, record};

/// After how long the broker aborts the transaction of a process that has died: for so long, readers wait behind it,
/// and so does whoever takes its partitions over. Started again under the same name, a process ends it at once.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long one question at the start may take. Short, since the client only says what is wrong between two of them.
const STEP: Duration = Duration::from_millis(500);
/// The shortest time that the broker is given for an answer.
const LEAST: Duration = Duration::from_millis(100);
/// The pause before the client's full queue is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Transactions {
    producer: ThreadedProducer<TransactionsCx>,
    pending: Option<Pending>,
    /// When the last one began.
    began: Instant,
    pub(super) claim: Arc<Claim>,
}

/// A transaction whose end is still to come.
struct Pending {
    batch: Batch,
    /// Why it is to be aborted, if it is.
    abort: Option<String>,
}

/// What became of a transaction.
pub(super) enum Done {
    Committed(Batch),
    /// Nothing of it is seen by anybody. Why, in words.
    Aborted(String),
    /// The broker does not answer just now; to be asked again.
    NotYet,
}

/// Why there will be no more transactions with this producer.
pub(super) enum Fault {
    /// It is not known what became of the last one: only the committed positions tell. `fenced` when the broker has
    /// ended it, as it does when another producer has taken the name.
    Unclear { fenced: bool, what: String },
    /// There is no use in trying again.
    Final(Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclear { what, .. } => f.write_str(what),
            Self::Final(error) => error.fmt(f),
        }
    }
}

struct TransactionsCx {
    cause: Arc<Cause>,
    /// The first message that was refused for good.
    refused: Mutex<Option<Error>>,
}

impl Transactions {
    /// Makes a producer and registers its name: what an earlier owner of the name has left open is ended.
    pub(super) fn open(options: &Options, claim: Arc<Claim>, deadline: Instant) -> Result<Self, Error> {
        let cause = Arc::new(Cause::default());
        // What is published was checked by the publishers that it was left with, dead letters' among them.
        let options = &Options { limits: publisher::letter_limits(), ..options.clone() };
        let mut config = publisher::config(options);
        config
            .set("transactional.id", claim.name())
            .set("transaction.timeout.ms", millis(TIMEOUT))
            .set("message.timeout.ms", millis(TIMEOUT));
        let context = TransactionsCx { cause: Arc::clone(&cause), refused: Mutex::default() };
        let producer = ThreadedProducer::from_config_and_context(&config, context);
        let producer: ThreadedProducer<_> = producer.map_err(|cause| from_creation(&cause))?;
        loop {
            match producer.init_transactions(STEP) {
                Ok(()) => return Ok(Self { producer, pending: None, began: Instant::now(), claim }),
                Err(KafkaError::Transaction(failed)) if failed.is_retriable() && Instant::now() < deadline => {
                    if let Some(refused) = cause.refused() {
                        return Err(refused);
                    }
                }
                Err(KafkaError::Transaction(failed)) if !failed.is_retriable() => {
                    let what = format!("`{}`: {}", claim.name(), failed.string());
                    return Err(error(kind(failed.code()), "begin transactions", what));
                }
                Err(_) => {
                    let what = format!(
                        "`{}`: the coordinator of transactions did not answer in time: {}",
                        claim.name(),
                        cause.error(&options.brokers)
                    );
                    return Err(error(ErrorKind::Unavailable, "begin transactions", what));
                }
            }
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// How long ago the last one began.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Publishes and commits a batch. None may be pending.
    pub(super) fn run(
        &mut self,
        batch: Batch,
        consumer: &BaseConsumer<ConsumerCx>,
        deadline: Instant,
    ) -> Result<Done, Fault> {
        self.began = Instant::now();
        self.producer.begin_transaction().map_err(|cause| unclear(&cause))?;
        let abort = self.fill(&batch, consumer, deadline)?.err();
        self.pending = Some(Pending { batch, abort });
        self.finish(deadline)
    }

    /// Ends the transaction that is pending, if the broker answers until `deadline`.
    pub(super) fn finish(&mut self, deadline: Instant) -> Result<Done, Fault> {
        loop {
            let Some(Pending { abort, .. }) = &mut self.pending else { return Ok(Done::NotYet) };
            let ended = match abort {
                None => self.producer.commit_transaction(left(deadline)),
                Some(_) => self.producer.abort_transaction(left(deadline)),
            };
            match ended {
                Ok(()) => break,
                Err(KafkaError::Transaction(failed)) if failed.txn_requires_abort() && abort.is_none() => {
                    *abort = Some(failed.string());
                }
                Err(KafkaError::Transaction(failed)) if failed.is_retriable() => return Ok(Done::NotYet),
                Err(cause) => return Err(unclear(&cause)),
            }
        }
        match self.pending.take() {
            Some(Pending { batch, abort: None }) => Ok(Done::Committed(batch)),
            Some(Pending { abort: Some(why), .. }) => match self.producer.context().take_refused() {
                Some(refused) => Err(Fault::Final(refused)),
                None => Ok(Done::Aborted(why)),
            },
            None => Ok(Done::NotYet),
        }
    }

    /// Hands messages and positions over; why the transaction has to be aborted, if it has to.
    fn fill(
        &self,
        batch: &Batch,
        consumer: &BaseConsumer<ConsumerCx>,
        deadline: Instant,
    ) -> Result<Result<(), String>, Fault> {
        for outgoing in batch.0.iter().flat_map(|step| &step.outboxes).flat_map(|outbox| outbox.iter()) {
            let (topic, message) = (&outgoing.destination.destination, &outgoing.message);
            let headers = match record::headers(message) {
                Ok(headers) => headers,
                Err(refused) => return Ok(Err(self.producer.context().refuse(refused))),
            };
            let key = record::key(message);
            let mut record = BaseRecord::<[u8], [u8], ()>::to(topic)
                .payload(&message.body[..])
                .timestamp(record::timestamp(message))
                .headers(headers);
            record.key = key.as_deref();
            while let Err((cause, unsent)) = self.producer.send(record) {
                match cause {
                    KafkaError::MessageProduction(Code::QueueFull) if Instant::now() < deadline => {
                        record = unsent;
                        thread::sleep(FULL_PAUSE);
                    }
                    KafkaError::MessageProduction(code) => {
                        return Ok(Err(self.producer.context().note(code, topic)));
                    }
                    cause => return Ok(Err(cause.to_string())),
                }
            }
        }
        let context = consumer.context();
        let Some(group) = consumer.group_metadata() else { return Ok(Err("not a member of the group".to_owned())) };
        // In this order: who is let in again after having been thrown out has new metadata, with which the broker would
        // take positions of partitions that others have by now. It has lost its assignment then, until it learns of it.
        if consumer.assignment_lost() {
            return Ok(Err("the membership of the group was lost".to_owned()));
        }
        let commits = batch.0.iter().map(|step| &step.commit);
        let list = match context.list(commits) {
            Ok(list) => list,
            Err(cause) => return Ok(Err(cause.to_string())),
        };
        match self.producer.send_offsets_to_transaction(&list, &group, left(deadline)) {
            Ok(()) => Ok(Ok(())),
            Err(KafkaError::Transaction(failed)) if failed.is_fatal() => Err(unclear(&KafkaError::Transaction(failed))),
            Err(KafkaError::Transaction(failed)) => Ok(Err(match kind(failed.code()) {
                ErrorKind::PermissionDenied => {
                    let refused = error(ErrorKind::PermissionDenied, "commit", failed.string());
                    self.producer.context().refuse(refused)
                }
                _ => failed.string(),
            })),
            Err(cause) => Ok(Err(cause.to_string())),
        }
    }
}

impl TransactionsCx {
    /// Notes why a message was not published, if trying again is no use; answers it in words.
    fn note(&self, code: Code, topic: &str) -> String {
        let cause = from_delivery(code, topic);
        let hopeless = matches!(
            cause.kind(),
            ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::TooLarge | ErrorKind::Invalid
        );
        if hopeless {
            return self.refuse(cause);
        }
        cause.to_string()
    }

    fn refuse(&self, cause: Error) -> String {
        let what = format!("refused for good, so that nothing after it can be committed: {cause}");
        let refused = error(cause.kind(), "commit", what.clone()).with_retryable(false);
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refused);
        what
    }

    fn take_refused(&self) -> Option<Error> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for TransactionsCx {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client::log(level, facility, text);
    }

    fn error(&self, cause: KafkaError, reason: &str) {
        self.cause.note(&cause, reason);
    }
}

impl ProducerContext for TransactionsCx {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((cause, record)) = result
            && let Some(code) = cause.rdkafka_error_code()
            // What an abort throws away.
            && !matches!(code, Code::PurgeQueue | Code::PurgeInflight)
        {
            self.note(code, record.topic());
        }
    }
}

fn unclear(cause: &KafkaError) -> Fault {
    let code = match cause {
        KafkaError::Transaction(failed) => RDKafkaError::code(failed),
        cause => cause.rdkafka_error_code().unwrap_or(Code::Unknown),
    };
    let fenced = matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch);
    Fault::Unclear { fenced, what: cause.to_string() }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(LEAST)
}
