//! Whether a message still waits for its batch.

use std::sync::atomic::{AtomicU8, Ordering};

/// What a lane and the batch that its message waits for agree upon: either the batch begins with the message, or the
/// lane takes it away before, and never both.
#[derive(Debug, Default)]
pub(crate) struct Hold(AtomicU8);

impl Hold {
    /// The batch begins; false when the message was taken away.
    pub(crate) fn begin(&self) -> bool {
        self.leave_waiting_for(BEGUN) != WITHDRAWN
    }

    /// The message is taken away; false when its batch has begun.
    pub(crate) fn withdraw(&self) -> bool {
        self.leave_waiting_for(WITHDRAWN) != BEGUN
    }

    /// Whether the message has neither been handled nor been taken away.
    pub(crate) fn waits(&self) -> bool {
        self.0.load(Ordering::SeqCst) == WAITING
    }

    /// Answers what it was before.
    fn leave_waiting_for(&self, to: u8) -> u8 {
        match self.0.compare_exchange(WAITING, to, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(before) | Err(before) => before,
        }
    }
}

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;
