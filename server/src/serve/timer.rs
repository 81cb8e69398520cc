//! The time as hyper's HTTP/2 sees it: that of the tick.
//!
//! hyper pings a silent peer, to find out whether it is still there. For that it asks for the time and polls a timer at
//! each of its turns, several times a request, although minutes may pass until it matters. Asked of the system and of
//! tokio, that was the largest single cost of a request on HTTP/2; here it is a load and a comparison. Like all
//! deadlines of a connection these are coarse, and stand still while the process does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use super::Conn;

/// The timer of one connection, for hyper, which sleeps once at a time: a second sleep takes the alarm of the first.
#[derive(Debug)]
pub(super) struct TickTimer(Arc<Conn>);

/// Is over at a tick, which wakes the connection's task.
struct TickSleep {
    conn: Arc<Conn>,
    until: u64,
}

impl TickTimer {
    pub(super) fn new(conn: Arc<Conn>) -> Self {
        Self(conn)
    }
}

impl Timer for TickTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let conn = Arc::clone(&self.0);
        let until = conn.clock().tick_of(deadline);
        conn.wake_at(until);
        Box::pin(TickSleep { conn, until })
    }

    fn now(&self) -> Instant {
        self.0.clock().instant()
    }
}

impl Future for TickSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.conn.clock().now() < self.until { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Sleep for TickSleep {}
