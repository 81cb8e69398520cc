//! A subscriber whose broker lends messages for a limited time.

use std::task::{Context, Poll};

use mainspring_pubsub::driver::{self, Capabilities, Endpoint};
use mainspring_pubsub::{Delivery, Error, Subscriber};
use tokio::time::Instant;

/// Another subscriber with these capabilities.
#[derive(Debug)]
pub struct Lending {
    inner: Subscriber,
    capabilities: Capabilities,
}

impl Lending {
    pub fn subscriber(inner: Subscriber, change: impl FnOnce(&mut Capabilities)) -> Subscriber {
        let mut capabilities = inner.capabilities();
        change(&mut capabilities);
        Subscriber::new(Self { inner, capabilities })
    }
}

#[async_trait::async_trait]
impl driver::Subscriber for Lending {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        std::pin::pin!(self.inner.next()).poll(cx)
    }

    async fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        self.inner.close(deadline).await
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("lending", "orders")
    }
}
