//! How a connection is made to end: gently when draining begins, in order when a deadline has passed, or at once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::conn::{Conn, NEVER};
use super::goodbye::Goodbye;
use super::stage::{Order, Protocol, Stage};

impl Conn {
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

    /// Asks for a GOAWAY or a close frame, where there is such a thing and it has not been asked for.
    fn say_goodbye(&self) -> bool {
        let is_news = self.goodbye.get().is_some_and(Goodbye::say);
        if is_news {
            self.wake();
        }
        is_news
    }

    /// Wakes who reads and writes: the connection's task, or the handler's after an upgrade.
    pub(super) fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
        self.reader.wake();
        self.writer.wake();
    }

    fn hurry(&self) {
        self.end_by(self.clock.after(self.limits.last_call).min(self.clock.drained()));
    }

    fn end_by(&self, deadline: u64) {
        self.deadline.fetch_min(deadline, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::super::Limits;
    use super::super::connections::Clock;
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
