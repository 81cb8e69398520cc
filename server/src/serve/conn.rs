//! What is known of one connection, shared between its task, its requests and the tick.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::connections::Clock;
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
    clock: Arc<Clock>,
    protocol: AtomicU8,
    stage: AtomicU8,
    /// When the stage must be over; `NEVER` while nothing is expected of the peer.
    deadline: AtomicU64,
    /// When a peer that does not read must have read something.
    write_deadline: AtomicU64,
    /// Requests that were begun and not settled. More than one only on HTTP/2.
    active: AtomicU32,
    /// The route of the request that was begun last.
    route: AtomicUsize,
    order: AtomicU8,
    draining: AtomicBool,
    /// The connection's task. Its waker never changes, so it is stored once.
    task: OnceLock<Waker>,
    /// Who reads and who writes an upgraded connection: tasks that are not ours.
    pub(super) reader: AtomicWaker,
    pub(super) writer: AtomicWaker,
    pub(super) goodbye: OnceLock<Goodbye>,
}

/// What the connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It has sent nothing yet.
    FirstByte,
    /// It has begun a request head, or the HTTP/2 preface.
    Head,
    /// A request is being handled or answered.
    Busy,
    /// Between requests.
    Idle,
    /// It is a WebSocket, or another protocol, now.
    Upgraded,
    /// Everything is answered; the peer has only to close.
    Leaving,
}

/// What the connection's task is told. Orders only ever grow, but for a [`pardon`](Conn::pardon).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    Serve,
    /// End now; nothing is in progress, or the peer broke a deadline.
    Close,
    /// End now, whatever is in progress.
    Abort,
}

/// What the bytes turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Protocol {
    Unknown,
    Http1,
    Http2,
}

const NEVER: u64 = u64::MAX;
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

    /// Whether a deadline has passed at `now`.
    pub(super) fn is_late(&self, now: u64) -> bool {
        self.deadline.load(Ordering::Relaxed) <= now || self.write_deadline.load(Ordering::Relaxed) <= now
    }

    /// Whether it is the peer's reading that is late, rather than its writing.
    pub(super) fn is_write_late(&self, now: u64) -> bool {
        self.write_deadline.load(Ordering::Relaxed) <= now
    }

    /// Gives a connection with nothing in progress its last call: one more request is answered, with
    /// `connection: close`, and then it ends. On HTTP/2 a GOAWAY says the same; a WebSocket is closed with 1001.
    ///
    /// May be called again and again, and is: a connection that moves on to another stage at this very moment does
    /// not notice the first time.
    pub(super) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        match self.stage() {
            Stage::FirstByte | Stage::Idle if !self.is_stalled() => self.hurry(),
            // Bytes that both protocols may begin with: of a request there is nothing yet.
            Stage::Head if self.protocol() == Protocol::Unknown => self.hurry(),
            // Of half a head nothing was accepted, so it may not cost us the budget.
            Stage::Head => self.end_by(self.clock.drained()),
            Stage::FirstByte | Stage::Busy | Stage::Idle | Stage::Upgraded | Stage::Leaving => {}
        }
        self.say_goodbye();
    }

    /// Closes an HTTP/2 connection gently first, everything else at once.
    pub(super) fn expire(&self, now: u64) {
        let gently = self.protocol() == Protocol::Http2 && self.stage() == Stage::Idle && !self.is_write_late(now);
        if gently && self.say_goodbye() {
            self.deadline.store(self.clock.after(Duration::from_secs(1)), Ordering::Relaxed);
        } else {
            self.deadline.store(NEVER, Ordering::Relaxed);
            self.write_deadline.store(NEVER, Ordering::Relaxed);
            self.give(Order::Close);
        }
    }

    pub(super) fn give(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::Release);
        self.wake();
    }

    /// Takes back the order to close an idle connection, if a request has come since. Whether one has.
    pub(super) fn pardon(&self) -> bool {
        // `expire` left no deadline. A request that was begun shows in the stage, one that was answered set a new one.
        let has_come = self.stage() != Stage::Idle || self.deadline.load(Ordering::Relaxed) != NEVER;
        let (close, serve) = (Order::Close as u8, Order::Serve as u8);
        has_come && self.order.compare_exchange(close, serve, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Close,
            _ => Order::Abort,
        }
    }

    pub(super) fn runs_on(&self, task: &Waker) {
        if self.task.get().is_none() {
            let _ = self.task.set(task.clone());
        }
    }

    /// Asks for a GOAWAY or a close frame, where there is such a thing and it has not been asked for.
    fn say_goodbye(&self) -> bool {
        let is_news = self.goodbye.get().is_some_and(Goodbye::say);
        if is_news {
            self.wake();
        }
        is_news
    }

    /// Wakes who reads and writes: the connection's task, or the handler's after an upgrade.
    fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
        self.reader.wake();
        self.writer.wake();
    }

    /// Where a request that is cut off belongs to.
    pub(super) fn route(&self) -> usize {
        self.route.load(Ordering::Relaxed)
    }

    fn hurry(&self) {
        self.end_by(self.clock.after(self.limits.last_call).min(self.clock.drained()));
    }

    fn end_by(&self, deadline: u64) {
        self.deadline.fetch_min(deadline, Ordering::Relaxed);
    }

    /// Whether something is written that the peer does not take.
    fn is_stalled(&self) -> bool {
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

impl Stage {
    /// What a stop report says the peer was doing.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::FirstByte => "sent nothing",
            Self::Head => "half a request head",
            Self::Busy => "request in progress",
            Self::Idle => "idle",
            Self::Upgraded => "upgraded",
            Self::Leaving => "answered, not closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle timeout of ten seconds, a last call of one.
    fn conn() -> Conn {
        let limits = Limits {
            max_connections: 1,
            max_header_bytes: 0,
            first_byte_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            last_call: Duration::from_secs(1),
        };
        let conn = Conn::new(1, SocketAddr::from(([127, 0, 0, 1], 1)), Arc::new(limits), Arc::new(Clock::new()));
        conn.speaks(Protocol::Http1);
        conn
    }

    #[test]
    fn an_answer_that_is_not_read_yet_is_no_idleness() {
        for stalls_first in [true, false] {
            let conn = conn();
            conn.request_begun(0);
            conn.begin_drain();
            if stalls_first {
                conn.write_stalled();
                conn.request_ended();
            } else {
                conn.request_ended();
                conn.write_stalled();
            }
            conn.begin_drain();
            assert!(!conn.is_late(5_000), "the last call is for those who have their answer");
            assert!(conn.is_late(10_100) && conn.is_write_late(10_100), "but it must be read some time");
            conn.write_moved();
            assert!(conn.is_late(1_100) && !conn.is_write_late(10_100));
        }
    }

    #[test]
    fn whoever_becomes_idle_while_draining_gets_a_last_call() {
        let conn = conn();
        conn.request_begun(0);
        conn.begin_drain();
        assert!(!conn.is_late(u64::MAX - 1));
        conn.request_ended();
        assert!(!conn.is_late(1_099) && conn.is_late(1_100));
        conn.begin_drain();
        assert!(conn.is_late(1_100), "saying it again buys no time");
    }

    #[test]
    fn an_idle_connection_is_pardoned_when_a_request_has_come() {
        let conn = conn();
        conn.request_begun(0);
        conn.request_ended();
        conn.expire(10_100);
        assert!(!conn.pardon() && conn.order() == Order::Close);
        conn.request_begun(0);
        assert!(conn.pardon() && conn.order() == Order::Serve);
        conn.request_ended();
        conn.expire(20_200);
        conn.request_begun(0);
        conn.request_ended();
        assert!(conn.pardon() && conn.order() == Order::Serve);
        conn.request_begun(0);
        conn.give(Order::Abort);
        assert!(!conn.pardon() && conn.order() == Order::Abort);
    }
}
