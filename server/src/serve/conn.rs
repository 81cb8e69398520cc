//! What is known of one connection, shared between its task, its requests and the tick.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::connections::Clock;
use super::stage::{Order, Protocol, Stage};
use super::{Limits, goodbye::Goodbye};

/// A connection. Its task and its socket update it with plain stores; the tick reads it and gives orders.
///
/// Deadlines are coarse, in ticks of the shared [`Clock`], because a timer for each request costs a tenth of the
/// request. They are never early, and late by at most two ticks and the time in which the process stood still.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(super) id: u64,
    pub(crate) peer: SocketAddr,
    /// The peer as the access log has it.
    remote: OnceLock<Box<str>>,
    pub(crate) opened: Instant,
    pub(super) limits: Arc<Limits>,
    pub(super) clock: Arc<Clock>,
    protocol: AtomicU8,
    stage: AtomicU8,
    /// When the stage must be over; `NEVER` while nothing is expected of the peer.
    pub(super) deadline: AtomicU64,
    /// When a peer that does not read must have read something.
    pub(super) write_deadline: AtomicU64,
    /// When the connection's task wants to be woken, for hyper's sake.
    alarm: AtomicU64,
    /// Requests that were begun and not settled. More than one only on HTTP/2.
    active: AtomicU32,
    /// The route of the request that was begun last.
    route: AtomicUsize,
    pub(super) order: AtomicU8,
    pub(super) draining: AtomicBool,
    /// The connection's task. Its waker never changes, so it is stored once.
    pub(super) task: OnceLock<Waker>,
    /// Who reads and who writes an upgraded connection: tasks that are not ours.
    pub(super) reader: AtomicWaker,
    pub(super) writer: AtomicWaker,
    pub(super) goodbye: OnceLock<Goodbye>,
}

pub(super) const NEVER: u64 = u64::MAX;
/// How long a peer that has been told that nothing more will come may take to close.
const LINGER: Duration = Duration::from_millis(500);

impl Conn {
    pub(super) fn new(id: u64, peer: SocketAddr, limits: Arc<Limits>, clock: Arc<Clock>) -> Self {
        let deadline = clock.after(limits.first_byte_timeout);
        Self {
            id,
            peer,
            remote: OnceLock::new(),
            opened: Instant::now(),
            limits,
            clock,
            protocol: AtomicU8::new(Protocol::Unknown as u8),
            stage: AtomicU8::new(Stage::FirstByte as u8),
            deadline: AtomicU64::new(deadline),
            write_deadline: AtomicU64::new(NEVER),
            alarm: AtomicU64::new(NEVER),
            active: AtomicU32::new(0),
            route: AtomicUsize::new(0),
            order: AtomicU8::new(Order::Serve as u8),
            draining: AtomicBool::new(false),
            task: OnceLock::new(),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            goodbye: OnceLock::new(),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self.protocol.load(Ordering::Relaxed) {
            1 => Protocol::Http1,
            2 => Protocol::Http2,
            _ => Protocol::Unknown,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::FirstByte,
            1 => Stage::Head,
            2 => Stage::Busy,
            3 => Stage::Idle,
            4 => Stage::Upgraded,
            _ => Stage::Leaving,
        }
    }

    /// The peer's address as text, written once and not for each of its requests.
    pub(crate) fn remote(&self) -> &str {
        self.remote.get_or_init(|| self.peer.to_string().into())
    }

    /// A request head has arrived, for this route.
    pub(crate) fn request_begun(&self, route: usize) {
        self.route.store(route, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
        self.enter(Stage::Busy, NEVER);
    }

    /// A request was answered to its end, or given up.
    pub(crate) fn request_ended(&self) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 && self.stage() == Stage::Busy {
            // What was answered may still be on its way to a peer that reads slowly: that is no idleness.
            self.enter(Stage::Idle, if self.is_stalled() { NEVER } else { self.idle_deadline() });
        }
    }

    /// The response turned the connection over to another protocol.
    pub(crate) fn upgraded(&self, websocket: bool) {
        if websocket {
            let _ = self.goodbye.set(Goodbye::websocket());
        }
        self.enter(Stage::Upgraded, NEVER);
        if self.draining.load(Ordering::Relaxed) {
            self.begin_drain();
        }
    }

    /// Nothing more will be written.
    pub(super) fn answered_everything(&self) {
        self.enter(Stage::Leaving, self.clock.after(LINGER));
    }

    /// Bytes have arrived.
    pub(super) fn heard(&self) {
        match self.stage() {
            Stage::FirstByte | Stage::Idle if self.protocol() != Protocol::Http2 => {
                self.enter(Stage::Head, self.clock.after(self.limits.header_timeout));
            }
            _ => {}
        }
    }

    /// The HTTP version is known.
    pub(super) fn speaks(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Ordering::Relaxed);
        if protocol == Protocol::Http2 {
            let _ = self.goodbye.set(Goodbye::http2());
            self.enter(Stage::Idle, self.idle_deadline());
        }
    }

    /// The peer does not take what we write.
    pub(super) fn write_stalled(&self) {
        if !self.is_stalled() {
            self.write_deadline.store(self.clock.after(self.limits.idle_timeout), Ordering::Relaxed);
            if self.stage() == Stage::Idle {
                self.deadline.store(NEVER, Ordering::Relaxed);
            }
        }
    }

    /// The peer took something.
    pub(super) fn write_moved(&self) {
        if self.is_stalled() {
            self.write_deadline.store(NEVER, Ordering::Relaxed);
            if self.stage() == Stage::Idle {
                self.deadline.store(self.idle_deadline(), Ordering::Relaxed);
            }
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Has the connection's task woken at a tick.
    pub(super) fn wake_at(&self, tick: u64) {
        self.alarm.store(tick, Ordering::Relaxed);
    }

    /// Wakes the connection's task if it is time.
    pub(super) fn ring(&self, now: u64) {
        if self.alarm.load(Ordering::Relaxed) <= now {
            self.alarm.store(NEVER, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Whether a deadline has passed at `now`.
    pub(super) fn is_late(&self, now: u64) -> bool {
        self.deadline.load(Ordering::Relaxed) <= now || self.write_deadline.load(Ordering::Relaxed) <= now
    }

    /// Whether it is the peer's reading that is late, rather than its writing.
    pub(super) fn is_write_late(&self, now: u64) -> bool {
        self.write_deadline.load(Ordering::Relaxed) <= now
    }

    pub(super) fn runs_on(&self, task: &Waker) {
        if self.task.get().is_none() {
            let _ = self.task.set(task.clone());
        }
    }

    /// Where a request that is cut off belongs to.
    pub(super) fn route(&self) -> usize {
        self.route.load(Ordering::Relaxed)
    }

    /// Whether something is written that the peer does not take.
    pub(super) fn is_stalled(&self) -> bool {
        self.write_deadline.load(Ordering::Relaxed) != NEVER
    }

    fn idle_deadline(&self) -> u64 {
        let draining = self.draining.load(Ordering::Relaxed);
        self.clock.after(if draining { self.limits.last_call } else { self.limits.idle_timeout })
    }

    fn enter(&self, stage: Stage, deadline: u64) {
        self.stage.store(stage as u8, Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
    }
}
