//! How messages come: each partition by a queue of its own, which is not read while there is no room for more. Whatever
//! comes past its queue is taken in first.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use mainspring_pubsub::ErrorKind;
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use tracing::{debug, warn};

use super::context::ConsumerCx;
use super::state::{Fetched, Room};
use super::worker::{Ended, Worker};
use crate::bodies::Bodies;
use crate::client::millis;
use crate::error::{error, kind};
use crate::options::Protocol;
use crate::record;

/// What the client may fetch ahead of us, for each partition. It needs half as much again to keep small messages.
const FETCH_AHEAD_KIB: &str = "1024";
const FETCH_AHEAD_MESSAGES: &str = "100000";
/// How soon a partition whose buffer was full is fetched again.
const FETCH_PAUSE: Duration = Duration::from_millis(10);
/// Messages taken from one partition before the next has its turn.
const TURN: usize = 250;

/// A partition's own queue: to hold the partition back, it is not read.
pub(super) struct Queue {
    generation: u64,
    messages: PartitionQueue<ConsumerCx>,
}

/// Settings of how a consumer fetches.
pub(super) fn configure(config: &mut ClientConfig) {
    config
        .set("queued.max.messages.kbytes", FETCH_AHEAD_KIB)
        .set("queued.min.messages", FETCH_AHEAD_MESSAGES)
        .set("fetch.queue.backoff.ms", millis(FETCH_PAUSE));
}

impl Worker<'_> {
    /// Serves the client's events, and takes in what comes past the queues: all of it, before a queue is read, or
    /// messages would overtake each other.
    pub(super) fn poll(&mut self) -> Result<(), Ended> {
        let consumer = Arc::clone(&self.consumer);
        loop {
            let events = consumer.context().events();
            match consumer.poll(Duration::ZERO) {
                Some(Ok(record)) => {
                    let partition = record.partition();
                    self.health.clear();
                    self.feed.push(partition, std::iter::once(fetched(&record, &mut self.bodies)));
                    if !self.astray.contains(&partition) {
                        self.astray.push(partition);
                    }
                }
                Some(Err(cause)) => self.heed(&cause)?,
                None if consumer.context().events() != events => {}
                None if self.split() => {}
                None => return Ok(()),
            }
        }
    }

    /// Gives partitions that have come a queue of their own, and drops the queues of those that have gone; true when
    /// there were any.
    fn split(&mut self) -> bool {
        let moved = self.consumer.context().moved.swap(false, Relaxed);
        if !moved && self.astray.is_empty() {
            return false;
        }
        let generations = self.feed.generations();
        if moved && !generations.is_empty() {
            self.health.clear();
        }
        let astray = std::mem::take(&mut self.astray);
        let stays = |partition: &i32, queue: &mut Queue| {
            generations.get(partition) == Some(&queue.generation) && !astray.contains(partition)
        };
        self.queues.retain(stays);
        for (partition, generation) in generations {
            if self.queues.contains_key(&partition) {
                continue;
            }
            // Without a queue the messages come by the consumer's own: not held back, but not lost either.
            if let Some(mut messages) = self.consumer.split_partition_queue(&self.options.topic, partition) {
                messages.set_nonempty_callback(waker());
                self.queues.insert(partition, Queue { generation, messages });
            }
        }
        true
    }

    /// Reads each queue as far as there is room; true when something was there.
    pub(super) fn fetch(&mut self) -> bool {
        let mut any = false;
        for (partition, queue) in &self.queues {
            let Some(Room { messages, bytes }) = self.feed.room(*partition) else { continue };
            let mut size = 0;
            while self.turn.len() < messages.min(TURN) && size < bytes {
                match queue.messages.poll(Duration::ZERO) {
                    Some(Ok(record)) => {
                        let fetched = fetched(&record, &mut self.bodies);
                        size += fetched.size;
                        self.turn.push(fetched);
                    }
                    Some(Err(error)) => {
                        warn!(topic = self.options.topic, partition, %error, "cannot fetch");
                        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                        self.health.note(kind(code), format!("partition {partition}: {error}"));
                    }
                    None => break,
                }
            }
            if !self.turn.is_empty() {
                any = true;
                self.health.clear();
                self.feed.push(*partition, self.turn.drain(..));
            }
        }
        any
    }

    /// Decides what an error means. Most pass, and the client tries on by itself.
    fn heed(&mut self, cause: &KafkaError) -> Result<(), Ended> {
        let code = cause.rdkafka_error_code().unwrap_or(Code::Unknown);
        if matches!(cause, KafkaError::MessageConsumptionFatal(_)) || code == Code::Fatal {
            let (code, text) = self.consumer.client().fatal_error().unwrap_or((code, cause.to_string()));
            let too_old = matches!(code, Code::UnsupportedVersion | Code::UnsupportedFeature);
            if too_old && self.protocol == Protocol::Consumer && self.options.protocol == Protocol::Auto {
                return Err(Ended::TooOld);
            }
            return Err(Ended::Failed(error(kind(code), "receive", text).with_retryable(false)));
        }
        match code {
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => {
                Err(Ended::Failed(error(ErrorKind::PermissionDenied, "receive", code.to_string())))
            }
            // The group will not have us, however often we ask.
            Code::InvalidSessionTimeout | Code::InconsistentGroupProtocol | Code::InvalidGroupId => {
                Err(Ended::Failed(error(ErrorKind::Other, "receive", code.to_string())))
            }
            Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => {
                debug!(topic = self.options.topic, error = %cause, "connection lost");
                Ok(())
            }
            _ => {
                warn!(topic = self.options.topic, error = %cause, "cannot fetch; trying on");
                self.health.note(kind(code), cause.to_string());
                Ok(())
            }
        }
    }
}

fn fetched(record: &BorrowedMessage<'_>, bodies: &mut Bodies) -> Fetched {
    Fetched::new(record.offset(), record::message(record, bodies))
}

/// What the client calls when a queue is empty no longer.
pub(super) fn waker() -> impl Fn() + Send + Sync + 'static {
    let thread = thread::current();
    move || thread.unpark()
}
