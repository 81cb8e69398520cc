//! How much may be on its way to a broker at once.

use std::fmt;
use std::time::Duration;

use mainspring_config::ByteSize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::config::PublishConfig;

/// A bound on messages and bytes in flight. Waiting is fair: first come, first served, also for large messages.
/// A message larger than the whole window goes alone.
pub(crate) struct Window {
    messages: Semaphore,
    bytes: Semaphore,
    max_messages: u32,
    max_bytes: u32,
    timeout: Duration,
}

/// Room in the window, given back on drop.
pub(crate) struct Permit<'a> {
    _messages: SemaphorePermit<'a>,
    _bytes: SemaphorePermit<'a>,
}

impl Window {
    pub(crate) fn new(config: &PublishConfig) -> Self {
        let max_messages = u32::try_from(config.max_messages).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        let max_bytes = u32::try_from(config.max_bytes.get()).unwrap_or(u32::MAX).max(1);
        Self {
            messages: Semaphore::new(max_messages as usize),
            bytes: Semaphore::new(max_bytes as usize),
            max_messages,
            max_bytes,
            timeout: config.timeout.get(),
        }
    }

    /// By when a publish that starts now must have an answer.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(crate) fn max_messages(&self) -> usize {
        self.max_messages as usize
    }

    pub(crate) fn max_bytes(&self) -> usize {
        self.max_bytes as usize
    }

    /// How many messages are on their way.
    pub(crate) fn used(&self) -> usize {
        self.max_messages as usize - self.messages.available_permits()
    }

    /// Room for one message, if there is room now. Whoever waits for room goes first: while anybody does, there is none.
    pub(crate) fn try_enter(&self, bytes: usize) -> Option<Permit<'_>> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.max_bytes);
        let _messages = self.messages.try_acquire().ok()?;
        let _bytes = self.bytes.try_acquire_many(bytes).ok()?;
        Some(Permit { _messages, _bytes })
    }

    pub(crate) async fn enter(&self, messages: usize, bytes: usize) -> Permit<'_> {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX).min(self.max_messages);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.max_bytes);
        let closed = "the window's semaphores are never closed";
        let _messages = self.messages.acquire_many(messages).await.expect(closed);
        let _bytes = self.bytes.acquire_many(bytes).await.expect(closed);
        Permit { _messages, _bytes }
    }

    /// Waits until everything that entered before has left.
    pub(crate) async fn drained(&self) {
        drop(self.enter(self.max_messages(), 0).await);
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = ByteSize::bytes(u64::from(self.max_bytes));
        write!(f, "the publish window ({} messages, {bytes}) stayed full for {:?}", self.max_messages, self.timeout)
    }
}
