//! The body going out: its record, its panics, its deadline, and the end of event streams.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use mainspring_daemon::{BoxError, BoxFuture};
use mainspring_observe::correlation;
use mainspring_observe::panics;
use tokio::time::{Instant, Sleep};

use super::pooled::Pooled;
use super::record::Outcome;
use crate::serve;

/// A response's body, with the record of its request.
pub(crate) struct ResponseBody {
    inner: Body,
    /// What is left of a frame that is given out in slices.
    rest: Bytes,
    record: Option<Pooled>,
    /// For an event stream, which has no end of its own: resolves when draining begins.
    drained: Option<BoxFuture<()>>,
    /// Armed when the body first keeps us waiting, unless the route is exempt.
    deadline: Option<Pin<Box<Sleep>>>,
    timed: bool,
}

const SLICE: usize = 64 * 1024;

impl ResponseBody {
    /// Takes over a response's body. `endless` marks an event stream: it has no timeout, and ends cleanly when the
    /// server drains. `silent` marks a response whose body is never sent, such as the answer to HEAD.
    pub(super) fn new(inner: Body, mut record: Pooled, endless: bool, silent: bool) -> Self {
        let timed = !endless && record.route().timeout.is_some();
        let drained = endless.then(|| -> BoxFuture<()> { Box::pin(record.dispatch.draining.requested()) });
        if silent || inner.is_end_stream() {
            record.complete();
            return Self {
                inner,
                rest: Bytes::new(),
                record: Some(record),
                drained: None,
                deadline: None,
                timed: false,
            };
        }
        Self { inner, rest: Bytes::new(), record: Some(record), drained, deadline: None, timed }
    }

    fn end(&mut self, outcome: Option<Outcome>) {
        if let Some(mut record) = self.record.take() {
            match outcome {
                Some(outcome) => record.outcome = Some(outcome),
                None => record.complete(),
            }
        }
    }

    /// Cuts a large frame, which hyper would take whole before the client has taken anything. The request would then
    /// be over, and its connection idle, while most of the answer has yet to leave.
    fn slice(&mut self, mut data: Bytes) -> Bytes {
        let Some(record) = &mut self.record else { return data };
        if data.len() > SLICE {
            self.rest = data.split_off(SLICE);
        }
        record.bytes_out += data.len() as u64;
        data
    }

    /// Whether the time for the whole answer is over.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(record) = &self.record else { return false };
        let Some(timeout) = record.route().timeout.filter(|_| self.timed) else { return false };
        let at: Instant = record.started + timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        deadline.as_mut().poll(cx).is_ready()
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            serve::body_polled(true);
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(Ok(Frame::data(this.slice(rest)))));
        }
        let Some(record) = &mut this.record else { return Poll::Ready(None) };
        let polled = correlation::lend(&mut record.correlation, || {
            catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.inner).poll_frame(cx)))
        });
        serve::body_polled(matches!(polled, Ok(Poll::Ready(_))));
        match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let frame = frame.map_data(|data| this.slice(data));
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(None)) => {
                this.end(None);
                Poll::Ready(None)
            }
            Ok(Poll::Ready(Some(Err(error)))) => {
                this.end(Some(Outcome::Error));
                tracing::warn!(%error, "response broken off: its body failed");
                Poll::Ready(Some(Err(error.into())))
            }
            Ok(Poll::Pending) => {
                if this.drained.as_mut().is_some_and(|drained| drained.as_mut().poll(cx).is_ready()) {
                    this.end(None);
                    return Poll::Ready(None);
                }
                if this.is_late(cx) {
                    this.end(Some(Outcome::Timeout));
                    return Poll::Ready(Some(Err("the response took longer than request_timeout".into())));
                }
                Poll::Pending
            }
            // The hook has logged it. An error resets the stream, so the client cannot take half an answer for a
            // whole one; the connection's other streams go on.
            Err(_) => {
                panics::count("response_body");
                this.end(Some(Outcome::Panic));
                Poll::Ready(Some(Err("the response's body panicked".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && (self.record.is_none() || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A body of known length is dropped after its last byte, without being asked for the end.
        if self.record.is_some() && self.rest.is_empty() && self.inner.is_end_stream() {
            self.end(None);
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").field("record", &self.record).finish_non_exhaustive()
    }
}
