//! The lines of a journal.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mainspring_pubsub::Message;
use mainspring_pubsub::driver::{Outcome, Position};

/// The attribute that names a message's producer.
pub(super) const PRODUCER: &str = "history-producer";
/// The attribute that numbers a producer's messages.
pub(super) const SEQ: &str = "history-seq";

/// What tells messages apart: who published it, and as which of its messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// The producer.
    pub producer: Arc<str>,
    /// The message's number; a producer counts from 0, in the order in which it publishes.
    pub seq: u64,
}

/// One line of a journal. Its place in the journal is when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which message it is about; `None` for one that carries no tag, and for commits.
    pub tag: Option<Tag>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A publish began.
    Publish {
        /// The message's key.
        key: Option<String>,
        /// A digest of body and key, to be recognised by.
        digest: u64,
    },
    /// The broker said that it has the message.
    Published,
    /// The publish failed, and the message was certainly not sent.
    Refused {
        /// The error.
        why: String,
    },
    /// The publish failed or was cancelled, and whether the message was sent is not known.
    Unknown,
    /// A consumer began to receive for its group.
    Joined {
        /// The group.
        group: Arc<str>,
        /// The consumer.
        consumer: Arc<str>,
    },
    /// The message was handed out.
    Delivered {
        /// The delivery's number in this journal.
        delivery: u64,
        /// The group.
        group: Arc<str>,
        /// The consumer.
        consumer: Arc<str>,
        /// Which attempt the broker said it is.
        attempt: Option<u32>,
        /// Where the broker said the message stands.
        position: Option<Position>,
        /// A digest of body and key.
        digest: u64,
    },
    /// The handler of a delivery came to its end.
    Ended {
        /// The delivery.
        delivery: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A delivery was settled: the outcome is on its way to the broker.
    Settled {
        /// The delivery.
        delivery: u64,
        /// How.
        settlement: Settlement,
    },
    /// The broker answered a settlement.
    Confirmed {
        /// The delivery.
        delivery: u64,
        /// Whether it took it; `false` when the lease was lost, or the settlement did not land.
        taken: bool,
    },
    /// The loan ended without a settlement: the lease ran out, the partition moved, or the process died.
    Revoked {
        /// The delivery.
        delivery: u64,
    },
    /// A group's position was stored: everything before `next` is done with.
    Committed {
        /// The group.
        group: Arc<str>,
        /// The partition.
        partition: u32,
        /// The first offset that is not done with.
        next: u64,
    },
}

/// How a delivery was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// Acked: never again.
    Ack,
    /// Rejected: never again.
    Reject,
    /// Nacked, returned or dropped: again.
    Return,
}

impl Tag {
    /// The tag that a message carries.
    pub fn of(message: &Message) -> Option<Self> {
        let producer = message.attributes.get(PRODUCER)?;
        let seq = message.attributes.get(SEQ)?.parse().ok()?;
        Some(Self { producer: producer.as_str().into(), seq })
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.producer, self.seq)
    }
}

impl Settlement {
    /// Whether the message is not to come again.
    pub fn is_final(self) -> bool {
        self != Self::Return
    }

    /// What it is called in sentences.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "acked",
            Self::Reject => "rejected",
            Self::Return => "returned",
        }
    }
}

impl From<&Outcome> for Settlement {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Ack => Self::Ack,
            Outcome::Reject { .. } => Self::Reject,
            _ => Self::Return,
        }
    }
}

/// Recognises a message by what must come out as it went in. Attributes are left out: brokers and traces add theirs.
pub(super) fn digest(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.key.hash(&mut hasher);
    message.body.hash(&mut hasher);
    hasher.finish()
}
