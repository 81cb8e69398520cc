//! What the debug page shows of the messages that a route holds.

use std::sync::Arc;

use tokio::time::Instant;

use super::job::Job;
use crate::Message;
use crate::delivery::Position;
use crate::memory::KeyHash;

/// A message that a lane has, until it is struck off.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) message: Arc<Message>,
    pub(super) key: Option<KeyHash>,
    pub(super) bytes: usize,
    pub(super) position: Option<Position>,
    pub(super) attempt: u32,
    pub(super) since: Instant,
    pub(super) received: Instant,
    pub(super) lease: Option<Instant>,
    pub(super) doing: Doing,
}

/// What a lane does with its message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// A layer holds it back: a limit, a throttle.
    Held,
    Handling,
    Burying,
}

/// A copy of what is held.
pub(super) struct Snapshot {
    pub(super) running: Vec<(usize, Running)>,
    pub(super) ready: Vec<Held>,
    pub(super) behind: Vec<Held>,
    pub(super) delayed: Vec<(Instant, Held)>,
    pub(super) bytes: usize,
}

/// A message that waits.
pub(super) struct Held {
    pub(super) message: Arc<Message>,
    pub(super) position: Option<Position>,
    pub(super) attempt: u32,
    pub(super) received: Instant,
    pub(super) lease: Option<Instant>,
}

impl Running {
    /// A message whose handler begins.
    pub(super) fn new(job: &Job, since: Instant) -> Self {
        let Held { message, position, attempt, received, lease } = Held::new(job);
        let (key, bytes) = (job.key, job.bytes);
        Self { message, key, bytes, position, attempt, since, received, lease, doing: Doing::Handling }
    }
}

impl Held {
    pub(super) fn new(job: &Job) -> Self {
        let (message, position) = (job.delivery.shared(), job.delivery.position());
        Self { message, position, attempt: job.attempt, received: job.received, lease: job.lease() }
    }
}
