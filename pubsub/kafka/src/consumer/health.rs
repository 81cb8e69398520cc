//! What is wrong when nothing comes though brokers answer: an error that lasts, or a topic that is gone. Of the latter members
//! of a group are not always told, so the topic is looked after while nothing comes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::ErrorKind;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::{debug, info};

use super::context::ConsumerCx;
use super::worker::Worker;
use crate::error::kind;
use crate::startup;

/// For how long an error has to come again and again, without any message in between, before it counts. Most pass.
const LASTS: Duration = Duration::from_secs(3);
/// An error that has not come for so long has passed. The client tells of one that lasts every five seconds at least.
const PASSED: Duration = Duration::from_secs(12);
/// How often the topic is looked after, and how soon again when it is not there: it may have been a moment's matter.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a look may take. An answer comes after those to what was asked before: fetches wait for messages.
const LOOK: Duration = Duration::from_secs(3);
/// How often there is anything to do at all.
const TICK: Duration = Duration::from_millis(250);

type Wrong = (ErrorKind, String);

/// What a consumer knows of what is wrong.
pub(super) struct Health {
    error: Option<Trouble>,
    topic: Topic,
    /// Messages or partitions have come since the last tick.
    came: bool,
    next_tick: Instant,
    shown: bool,
}

/// An error that may last.
struct Trouble {
    since: Instant,
    last: Instant,
    wrong: Wrong,
}

/// How the topic is.
struct Topic {
    /// What was wrong with it when it was last looked at, and for how many looks.
    wrong: Option<Wrong>,
    looks: u32,
    next_look: Instant,
    /// The look that is under way; empty when it fails.
    looking: Option<Receiver<Option<Wrong>>>,
}

impl Health {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let topic = Topic { wrong: None, looks: 0, next_look: now + LOOK_EVERY, looking: None };
        Self { error: None, topic, came: false, next_tick: now + TICK, shown: false }
    }

    /// An error came.
    pub(super) fn note(&mut self, kind: ErrorKind, what: String) {
        let now = Instant::now();
        let since = self.error.as_ref().map_or(now, |trouble| trouble.since);
        self.error = Some(Trouble { since, last: now, wrong: (kind, what) });
    }

    /// Messages came, or partitions.
    pub(super) fn clear(&mut self) {
        self.came = true;
    }

    /// What is wrong, if it lasts.
    fn fault(&mut self, now: Instant) -> Option<Wrong> {
        if std::mem::take(&mut self.came) {
            self.error = None;
            (self.topic.wrong, self.topic.looks, self.topic.next_look) = (None, 0, now + LOOK_EVERY);
        }
        self.error.take_if(|trouble| now - trouble.last >= PASSED);
        let error = self.error.as_ref().filter(|trouble| trouble.last - trouble.since >= LASTS);
        let topic = self.topic.wrong.as_ref().filter(|_| self.topic.looks > 1);
        topic.or(error.map(|trouble| &trouble.wrong)).cloned()
    }
}

impl Topic {
    /// Goes on looking at it.
    fn look(&mut self, consumer: &Arc<BaseConsumer<ConsumerCx>>) {
        if let Some(looking) = &self.looking {
            match looking.try_recv() {
                Ok(wrong) => {
                    self.looks = if wrong.is_some() { self.looks + 1 } else { 0 };
                    self.wrong = wrong;
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {}
            }
            self.looking = None;
            self.next_look = Instant::now() + if self.looks == 1 { LOOK_AGAIN } else { LOOK_EVERY };
        }
        // That no broker answers is told elsewhere.
        if Instant::now() >= self.next_look && consumer.context().has_broker() {
            let (answer, looking) = sync_channel(1);
            let consumer = Arc::clone(consumer);
            let look = move || {
                let topic = &consumer.context().topic;
                match consumer.fetch_metadata(Some(topic), LOOK) {
                    Ok(metadata) => {
                        let wrong = startup::look_up(&metadata, topic).err();
                        // Whoever asked may have left.
                        let _ = answer.send(wrong.map(|code| (kind(code), format!("topic `{topic}`: {code}"))));
                    }
                    Err(error) => debug!(topic, %error, "the topic could not be looked after"),
                }
            };
            // Without a thread it is tried again.
            let _ = thread::Builder::new().name("kafka-look".to_owned()).spawn(look);
            self.looking = Some(looking);
        }
    }
}

impl Worker<'_> {
    /// Has whoever receives know what is wrong.
    pub(super) fn look_after(&mut self) {
        let now = Instant::now();
        if now < self.health.next_tick {
            return;
        }
        self.health.next_tick = now + TICK;
        let fault = self.health.fault(now);
        self.health.topic.look(&self.consumer);
        if fault.is_none() && !self.health.shown {
            return;
        }
        if fault.is_none() {
            info!(topic = self.options.topic, "nothing is wrong any more");
        }
        self.health.shown = fault.is_some();
        self.feed.set_fault(fault);
    }
}
