//! A subscriber that does as it is told.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use mainspring_pubsub::driver::{self, Capabilities, Endpoint};
use mainspring_pubsub::{Delivery, Error, ErrorKind, Subscriber};
use tokio::time::{Instant, sleep};

/// A subscriber that hands out what it holds, fails as told, then works; its broker cannot delay.
#[derive(Debug)]
pub struct Scripted {
    inner: Subscriber,
    pub held: VecDeque<Delivery>,
    errors: VecDeque<ErrorKind>,
    close: Option<ErrorKind>,
    from: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl Scripted {
    pub fn new(inner: Subscriber, errors: impl IntoIterator<Item = ErrorKind>) -> Self {
        Self { inner, held: VecDeque::new(), errors: errors.into_iter().collect(), close: None, from: None }
    }

    /// Closes, and answers that it could not.
    pub fn failing_to_close(mut self, kind: ErrorKind) -> Self {
        self.close = Some(kind);
        self
    }

    pub fn after(mut self, pause: Duration) -> Self {
        self.from = Some(Box::pin(sleep(pause)));
        self
    }
}

impl From<Scripted> for Subscriber {
    fn from(scripted: Scripted) -> Self {
        Self::new(scripted)
    }
}

#[async_trait::async_trait]
impl driver::Subscriber for Scripted {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        if let Some(delivery) = self.held.pop_front() {
            return Poll::Ready(Ok(Some(delivery)));
        }
        if let Some(from) = &mut self.from {
            std::task::ready!(from.as_mut().poll(cx));
            self.from = None;
        }
        if let Some(kind) = self.errors.pop_front() {
            return Poll::Ready(Err(failed(kind, "receive")));
        }
        std::pin::pin!(self.inner.next()).poll(cx)
    }

    async fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        self.inner.close(deadline).await?;
        self.close.map_or(Ok(()), |kind| Err(failed(kind, "close")))
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.nack_delay = false;
        capabilities.transactions = false;
        capabilities
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("scripted", "orders")
    }
}

fn failed(kind: ErrorKind, operation: &'static str) -> Error {
    Error::new(kind, operation, "on purpose").with_backend("scripted")
}
