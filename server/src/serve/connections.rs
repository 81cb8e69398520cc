//! All connections of a listener: who is there, who is late, and how they are made to leave.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::conn::Conn;
use super::refusal::Refusal;
use super::stage::{Order, Stage};
use crate::metrics::ServerMetrics;

/// How long each stage of a connection may last, and how much it may send.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_connections: usize,
    pub(crate) max_header_bytes: usize,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) header_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// How long an idle connection may still begin one last request once draining has begun.
    pub(crate) last_call: Duration,
}

/// The register of connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Arc<Limits>,
    clock: Arc<Clock>,
    metrics: Arc<ServerMetrics>,
    inner: Mutex<Inner>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<u64, Arc<Conn>>,
    next: u64,
    /// Under the lock, so that a connection accepted while draining begins cannot be missed.
    draining: bool,
}

/// A connection that was still open when the time for draining was over.
#[derive(Clone, Debug)]
pub(crate) struct LeftOver {
    pub(crate) peer: SocketAddr,
    pub(crate) stage: Stage,
    /// Of its last request.
    pub(crate) route: usize,
    pub(crate) age: Duration,
}

/// Time in milliseconds, moved on by one task so that connections need not ask the system.
///
/// It stands still while the process does. Otherwise clients would be blamed, all at once, for the time in which we
/// did not look: while a handler blocked the runtime, or the machine slept.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    looked: AtomicU64,
    now: AtomicU64,
    /// While draining: when connections without a request must have ended.
    drained: AtomicU64,
}

/// How far apart the looks at the deadlines are.
const TICK: Duration = Duration::from_millis(100);
/// The same while draining, when the process waits for connections to end.
const DRAINING_TICK: Duration = Duration::from_millis(10);
/// What is more than this between two looks was not the clients' time.
const LONGEST_STEP: Duration = Duration::from_millis(200);

impl Connections {
    pub(crate) fn new(limits: Limits, metrics: Arc<ServerMetrics>) -> Arc<Self> {
        let clock = Arc::new(Clock::new());
        Arc::new(Self { limits: Arc::new(limits), clock, metrics, inner: Mutex::default(), emptied: Notify::new() })
    }

    /// Takes a connection in, or answers `None` at the cap.
    pub(super) fn open(&self, peer: SocketAddr) -> Option<Arc<Conn>> {
        let mut inner = self.lock();
        if inner.open.len() >= self.limits.max_connections {
            return None;
        }
        inner.next += 1;
        let conn = Arc::new(Conn::new(inner.next, peer, Arc::clone(&self.limits), Arc::clone(&self.clock)));
        inner.open.insert(conn.id, Arc::clone(&conn));
        if inner.draining {
            conn.begin_drain();
        }
        self.metrics.connections.set(inner.open.len() as i64);
        Some(conn)
    }

    /// Forgets a connection whose socket is closed.
    pub(super) fn close(&self, conn: &Conn) {
        let mut inner = self.lock();
        inner.open.remove(&conn.id);
        self.metrics.connections.set(inner.open.len() as i64);
        if inner.open.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Counts a peer that was told no before a request reached a handler.
    pub(super) fn refused(&self, peer: &SocketAddr, refusal: &Refusal) {
        self.metrics.rejected(refusal.reason);
        self.told(peer, refusal);
    }

    /// Writes down what a peer was told, so that it can be found by the id that it was given. The tick has counted it.
    pub(super) fn told(&self, peer: &SocketAddr, refusal: &Refusal) {
        let (status, request_id, reason) = (refusal.status, &refusal.id, refusal.reason);
        tracing::debug!(target: "mainspring::serve", %peer, status, request_id, reason, "refused");
    }

    /// Counts a connection, or a stream of one, that had to be ended for breaking a limit. Once for each, not for each
    /// of its frames.
    pub(super) fn ended(&self, peer: &SocketAddr, reason: &'static str) {
        self.metrics.rejected(reason);
        tracing::warn!(target: "mainspring::serve", %peer, reason, "ended for breaking a limit");
    }

    /// Looks at the deadlines, for ever. One task a listener runs it.
    pub(crate) async fn tick(&self) {
        loop {
            let tick = if self.lock().draining { DRAINING_TICK } else { TICK };
            tokio::time::sleep(tick).await;
            let now = self.clock.advance();
            let inner = self.lock();
            for conn in inner.open.values() {
                if inner.draining {
                    conn.begin_drain();
                }
                conn.ring(now);
                if conn.is_late(now) {
                    // One that has nothing to say broke no limit, unless it left the last answer unread.
                    if conn.is_write_late(now) {
                        self.ended(&conn.peer, "unread");
                    } else if !matches!(conn.stage(), Stage::Idle | Stage::Leaving) {
                        self.metrics.rejected("timeout");
                    }
                    conn.expire(now);
                }
            }
        }
    }

    /// Asks every connection to end: those with nothing in progress soon, and well before `by` whatever their limits
    /// are, the others when they are done.
    pub(crate) fn drain(&self, by: Instant) {
        self.clock.drain(by);
        let mut inner = self.lock();
        inner.draining = true;
        for conn in inner.open.values() {
            conn.begin_drain();
        }
    }

    /// Waits until no connection is open.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Registered before looking, so that the last one cannot leave in between.
            emptied.as_mut().enable();
            if self.lock().open.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Orders every connection to end at once.
    pub(crate) fn abort(&self) {
        for conn in self.lock().open.values() {
            conn.give(Order::Abort);
        }
    }

    /// The connections that are open.
    pub(crate) fn left(&self) -> Vec<LeftOver> {
        let inner = self.lock();
        let left = inner.open.values().map(|conn| LeftOver {
            peer: conn.peer,
            stage: conn.stage(),
            route: conn.route(),
            age: conn.opened.elapsed(),
        });
        left.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// The tick at which `timeout` from now is certainly over.
    pub(super) fn after(&self, timeout: Duration) -> u64 {
        // The last tick may be a tick old: add one, so that no deadline is early.
        self.now() + millis(timeout) + millis(TICK)
    }

    /// The tick it is.
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The tick it is, as an instant.
    pub(super) fn instant(&self) -> std::time::Instant {
        self.start.into_std() + Duration::from_millis(self.now())
    }

    /// The tick at which [`instant`](Self::instant) comes to `instant`.
    pub(super) fn tick_of(&self, instant: std::time::Instant) -> u64 {
        millis(instant.saturating_duration_since(self.start.into_std()))
    }

    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            looked: AtomicU64::new(0),
            now: AtomicU64::new(0),
            drained: AtomicU64::new(u64::MAX),
        }
    }

    /// The tick at which connections without a request must have ended, if draining has begun.
    pub(super) fn drained(&self) -> u64 {
        self.drained.load(Ordering::Relaxed)
    }

    fn drain(&self, by: Instant) {
        let left = by.saturating_duration_since(Instant::now());
        // The rest is for closing: deadlines are coarse, and the peer has to be told.
        let left = left - (left / 5).min(Duration::from_millis(500));
        self.drained.store(self.advance() + millis(left), Ordering::Relaxed);
    }

    fn advance(&self) -> u64 {
        let looked = millis(self.start.elapsed());
        let passed = looked - self.looked.swap(looked, Ordering::Relaxed).min(looked);
        let passed = passed.min(millis(LONGEST_STEP));
        self.now.fetch_add(passed, Ordering::Relaxed) + passed
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_stands_still_while_nobody_looks() {
        let clock = Clock::new();
        let deadline = clock.after(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.advance(), 200);
        for _ in 0..9 {
            tokio::time::advance(TICK).await;
            assert!(clock.advance() <= deadline);
        }
        tokio::time::advance(TICK).await;
        assert!(clock.advance() > deadline - millis(TICK));
    }
}
