//! The body going in: how large it may be, and how long it may take.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mainspring_daemon::BoxError;
use mainspring_web::body::{TimedOut, TooLarge};
use tokio::time::Sleep;

/// A request's body under its limits. They hold for every reader, also for a handler that takes the raw body.
///
/// Yields [`TooLarge`] at the first byte above the limit and [`TimedOut`] when the end has not come in time; the
/// extractors of `mainspring-web` answer them with 413 and 408.
#[derive(Debug)]
pub(super) struct RequestBody<B> {
    inner: B,
    limit: u64,
    timeout: Duration,
    /// Armed when the body first keeps us waiting: most bodies arrive with their head.
    deadline: Option<Pin<Box<Sleep>>>,
    intake: Arc<Intake>,
}

/// What the request's record wants to know of its body.
#[derive(Debug, Default)]
pub(super) struct Intake {
    read: AtomicU64,
    too_large: AtomicBool,
    too_late: AtomicBool,
}

impl<B> RequestBody<B> {
    pub(super) fn new(inner: B, limit: u64, timeout: Duration, intake: Arc<Intake>) -> Self {
        Self { inner, limit, timeout, deadline: None, intake }
    }
}

impl Intake {
    pub(super) fn bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The body went over its limit.
    pub(super) fn was_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    /// The body did not arrive in time.
    pub(super) fn was_too_late(&self) -> bool {
        self.too_late.load(Ordering::Relaxed)
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let read = this.intake.read.fetch_add(length, Ordering::Relaxed) + length;
                if read > this.limit {
                    this.intake.too_large.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(TooLarge { limit: this.limit }.into())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|result| result.map_err(Into::into))),
            Poll::Pending => {
                let timeout = this.timeout;
                let deadline = this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(deadline.as_mut().poll(cx));
                this.intake.too_late.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(TimedOut { after: timeout }.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
