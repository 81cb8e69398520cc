//! The streams of one HTTP/2 connection, each a task.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tokio_util::task::TaskTracker;

use super::Connections;

/// Runs the streams of one connection, and knows when the last has ended.
///
/// None has to be aborted: hyper's connection wakes its streams when it is dropped, and each that finds it gone ends,
/// its handler with it. That is why they are counted and not collected, which would cost a request three times as much.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    tasks: TaskTracker,
    patience: Arc<Patience>,
}

/// How long a peer may take nothing of a response, and where one that does is counted.
#[derive(Debug)]
struct Patience {
    time: Duration,
    connections: Arc<Connections>,
    peer: SocketAddr,
}

pin_project! {
    /// One stream: hyper's future, and a deadline for a peer that asks for a response and does not take it.
    ///
    /// The socket does not show such a peer, because HTTP/2 has a window for each stream: the connection moves on
    /// while one stream stands still, holding its place among the requests in flight for ever.
    struct Stream<F> {
        #[pin]
        inner: F,
        patience: Arc<Patience>,
        stalled: Option<Pin<Box<Sleep>>>,
    }
}

/// What the response's body did while its stream was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// It was not asked.
    No,
    /// It gave a frame: if the stream waits now, then for the peer.
    Frame,
    /// It had nothing yet: the stream waits for the handler.
    Waiting,
}

thread_local! {
    static MOVED: Cell<Moved> = const { Cell::new(Moved::No) };
}

/// Says that the response's body was asked for a frame, and whether it had one.
pub(crate) fn body_polled(had_frame: bool) {
    MOVED.set(if had_frame { Moved::Frame } else { Moved::Waiting });
}

impl Streams {
    /// `time` is how long the peer may take nothing of a response before its stream is reset.
    pub(super) fn new(time: Duration, connections: Arc<Connections>, peer: SocketAddr) -> Self {
        Self { tasks: TaskTracker::new(), patience: Arc::new(Patience { time, connections, peer }) }
    }

    /// Waits for the streams of a connection that was dropped.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Whoever waits for `ended` waits for the task: its handle has no use.
        drop(self.tasks.spawn(Stream { inner: stream, patience: Arc::clone(&self.patience), stalled: None }));
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        MOVED.set(Moved::No);
        if this.inner.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match MOVED.replace(Moved::No) {
            Moved::No => {}
            Moved::Waiting => *this.stalled = None,
            Moved::Frame => {
                let deadline = Instant::now() + this.patience.time;
                match this.stalled {
                    Some(stalled) => stalled.as_mut().reset(deadline),
                    None => *this.stalled = Some(Box::pin(tokio::time::sleep_until(deadline))),
                }
            }
        }
        // Ending here drops hyper's future, which resets the stream.
        let stalled = this.stalled.as_mut().is_some_and(|stalled| stalled.as_mut().poll(cx).is_ready());
        if !stalled {
            return Poll::Pending;
        }
        this.patience.connections.ended(&this.patience.peer, "unread");
        Poll::Ready(())
    }
}
