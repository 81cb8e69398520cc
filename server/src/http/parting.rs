//! An answer that did not wait for its request's body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

/// An answer that ends only when the body that it refuses was read and thrown away, or was too long for that.
///
/// In HTTP/2 a stream whose answer is whole is reset while its request is not, and a client that is busy sending may take
/// the reset for a failure and not look at the answer.
pub(super) struct Parting {
    answer: Body,
    unread: Option<Body>,
    left: usize,
    deadline: Pin<Box<Sleep>>,
}

/// More is not read.
const MOST: usize = 16 * 1024 * 1024;

impl Parting {
    /// `unread` has until the timeout to come.
    pub(super) fn new(answer: Body, unread: Body, timeout: Duration) -> Self {
        Self { answer, unread: Some(unread), left: MOST, deadline: Box::pin(tokio::time::sleep(timeout)) }
    }

    /// Ready when nothing more is to be read.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(unread) = &mut self.unread {
            match Pin::new(unread).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    self.left = self.left.saturating_sub(length);
                    if self.left == 0 {
                        self.unread = None;
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => self.unread = None,
                Poll::Pending if self.deadline.as_mut().poll(cx).is_ready() => self.unread = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

impl http_body::Body for Parting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if !this.answer.is_end_stream() {
            match Pin::new(&mut this.answer).poll_frame(cx) {
                Poll::Ready(None) => {}
                other => return other,
            }
        }
        this.poll_discard(cx).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        self.unread.is_none() && self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
