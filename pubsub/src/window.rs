//! How much may be on its way to a broker at once.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainspring_config::ByteSize;
use tokio::sync::{self, Notify};
use tokio::time::Instant;

use crate::config::PublishConfig;

/// A bound on messages and bytes in flight. Waiting is fair: first come, first served, also for large messages.
/// A message larger than the whole window goes alone.
pub(crate) struct Window {
    used: Mutex<Load>,
    /// How many wait for room. Changed before looking for room, which is under the lock, so that whoever leaves sees it.
    waiting: AtomicUsize,
    /// Whoever waits for room stands here: tokio's mutex lets them through in order.
    queue: sync::Mutex<()>,
    /// Tells the first of those who wait that somebody has left.
    left: Notify,
    max: Load,
    timeout: Duration,
}

/// Messages and bytes.
#[derive(Clone, Copy, Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

/// Room in the window, given back on drop.
pub(crate) struct Permit<'a> {
    window: &'a Window,
    load: Load,
}

impl Window {
    pub(crate) fn new(config: &PublishConfig) -> Self {
        let max = Load { messages: config.max_messages.max(1), bytes: config.max_bytes.as_usize().max(1) };
        Self {
            used: Mutex::default(),
            waiting: AtomicUsize::new(0),
            queue: sync::Mutex::default(),
            left: Notify::new(),
            max,
            timeout: config.timeout.get(),
        }
    }

    /// By when a publish that starts now must have an answer.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(crate) fn max_messages(&self) -> usize {
        self.max.messages
    }

    pub(crate) fn max_bytes(&self) -> usize {
        self.max.bytes
    }

    /// How many messages are on their way.
    pub(crate) fn used(&self) -> usize {
        self.lock().messages
    }

    /// Room for one message, if there is room now. Whoever waits for room goes first: while anybody does, there is none.
    pub(crate) fn try_enter(&self, bytes: usize) -> Option<Permit<'_>> {
        if self.is_waited_for() { None } else { self.admit(self.load(1, bytes)) }
    }

    /// Whether anybody waits for room.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(crate) async fn enter(&self, messages: usize, bytes: usize) -> Permit<'_> {
        let load = self.load(messages, bytes);
        let _waiting = Waiting::new(self);
        let _first = self.queue.lock().await;
        loop {
            let mut left = pin!(self.left.notified());
            // Listen before looking, so that whoever leaves in between is not missed.
            left.as_mut().enable();
            if let Some(permit) = self.admit(load) {
                return permit;
            }
            left.await;
        }
    }

    /// Waits until everything that entered before has left.
    pub(crate) async fn drained(&self) {
        drop(self.enter(self.max_messages(), 0).await);
    }

    /// What a message, or several that go together, take up: no more than there is.
    fn load(&self, messages: usize, bytes: usize) -> Load {
        Load { messages: messages.min(self.max.messages), bytes: bytes.min(self.max.bytes) }
    }

    fn admit(&self, load: Load) -> Option<Permit<'_>> {
        let mut used = self.lock();
        let (messages, bytes) = (used.messages + load.messages, used.bytes.saturating_add(load.bytes));
        if messages > self.max.messages || bytes > self.max.bytes {
            return None;
        }
        *used = Load { messages, bytes };
        Some(Permit { window: self, load })
    }

    fn lock(&self) -> MutexGuard<'_, Load> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut used = self.window.lock();
        used.messages -= self.load.messages;
        used.bytes -= self.load.bytes;
        drop(used);
        if self.window.is_waited_for() {
            self.window.left.notify_one();
        }
    }
}

/// Counts somebody as waiting for room, until dropped.
struct Waiting<'a>(&'a Window);

impl<'a> Waiting<'a> {
    fn new(window: &'a Window) -> Self {
        window.waiting.fetch_add(1, Ordering::SeqCst);
        Self(window)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = ByteSize::bytes(self.max.bytes as u64);
        write!(f, "the publish window ({} messages, {bytes}) stayed full for {:?}", self.max.messages, self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn window(bytes: u64) -> Window {
        Window::new(&PublishConfig { max_bytes: ByteSize::bytes(bytes), ..PublishConfig::default() })
    }

    #[tokio::test]
    async fn whoever_waits_goes_first_also_when_others_would_fit() {
        let window = window(10);
        let small = window.try_enter(6).unwrap();
        let mut large = pin!(window.enter(1, 8));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(window.try_enter(1).is_none(), "it would overtake the large one");
        drop(small);
        drop(large.await);
        assert_eq!(window.used(), 0);
        assert!(window.try_enter(1).is_some());
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_lets_the_others_in() {
        let window = window(10);
        let _small = window.try_enter(6).unwrap();
        {
            let mut large = pin!(window.enter(1, 8));
            assert!(large.as_mut().now_or_never().is_none());
        }
        assert!(window.try_enter(1).is_some());
    }

    #[tokio::test]
    async fn what_is_larger_than_the_window_goes_alone() {
        let window = window(10);
        let alone = window.enter(1, 100).await;
        assert!(window.try_enter(1).is_none());
        drop(alone);
        assert!(window.try_enter(10).is_some());
    }
}
