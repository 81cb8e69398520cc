//! What a broker does wrong, on purpose.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SYSTEM;
use crate::{Error, ErrorKind};

/// Faults for tests: everything that a real broker may do to a message, when a test says so.
///
/// Give it to [`Broker::with_faults`](super::Broker::with_faults), and keep a clone: clones speak of the same faults,
/// which can be set at any time and hold for all topics of the broker. Nothing goes wrong until something is set, and
/// order within a key is kept, as a broker keeps it.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    published: u64,
    failing: BTreeMap<u64, ErrorKind>,
    duplicates: u32,
    lost_acks: u32,
    delay: Duration,
    reorder: bool,
}

impl Faults {
    /// No fault yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails the `nth` publish from now, 1 being the next, with an error of that kind. Nothing is published then. In a
    /// batch each message counts. Zero is taken for one.
    pub fn fail_publish(&self, nth: u64, kind: ErrorKind) {
        let mut plan = self.lock();
        let at = plan.published + nth.max(1);
        plan.failing.insert(at, kind);
    }

    /// Takes in each of the next `messages` twice, as after a publish that was answered too late and sent again.
    pub fn duplicate(&self, messages: u32) {
        self.lock().duplicates = messages;
    }

    /// Loses the next `acks`: whoever acks is told that all is well, and the message is delivered again; where there is
    /// a visibility timeout, when that is over, else at once.
    pub fn drop_acks(&self, acks: u32) {
        self.lock().lost_acks = acks;
    }

    /// Holds back each message that is published from now on for this long. Zero ends it.
    pub fn delay(&self, by: Duration) {
        self.lock().delay = by;
    }

    /// Hands out the newest message that may be handed out instead of the oldest, so that keys overtake each other.
    pub fn reorder(&self, on: bool) {
        self.lock().reorder = on;
    }

    /// Counts a publish, which may have to fail.
    pub(super) fn publish(&self) -> Result<(), Error> {
        let mut plan = self.lock();
        plan.published += 1;
        let at = plan.published;
        match plan.failing.remove(&at) {
            Some(kind) => Err(Error::new(kind, "publish", "failed on purpose").with_backend(SYSTEM)),
            None => Ok(()),
        }
    }

    /// How often to take in a message.
    pub(super) fn copies(&self) -> usize {
        if use_up(&mut self.lock().duplicates) { 2 } else { 1 }
    }

    /// Whether an ack is lost.
    pub(super) fn loses_ack(&self) -> bool {
        use_up(&mut self.lock().lost_acks)
    }

    pub(super) fn delay_now(&self) -> Option<Duration> {
        Some(self.lock().delay).filter(|delay| !delay.is_zero())
    }

    pub(super) fn reorders(&self) -> bool {
        self.lock().reorder
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn use_up(left: &mut u32) -> bool {
    let any = *left > 0;
    *left -= u32::from(any);
    any
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.lock(), f)
    }
}
