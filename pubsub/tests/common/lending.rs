//! A subscriber whose broker lends messages for a limited time.

use std::sync::Arc;
use std::task::{Context, Poll};

use mainspring_pubsub::driver::{self, Capabilities, Endpoint, PartitionProgress, Progress};
use mainspring_pubsub::{Delivery, Error, Subscriber};
use tokio::time::Instant;

/// Another subscriber with these capabilities.
#[derive(Debug)]
pub struct Lending {
    inner: Subscriber,
    capabilities: Capabilities,
    progress: Option<Arc<Two>>,
}

/// Two partitions.
#[derive(Debug)]
pub struct Two(fn(u32) -> PartitionProgress);

impl Progress for Two {
    fn partitions(&self) -> Vec<PartitionProgress> {
        vec![self.0(0), self.0(1)]
    }
}

impl Lending {
    pub fn subscriber(inner: Subscriber, change: impl FnOnce(&mut Capabilities)) -> Subscriber {
        let mut capabilities = inner.capabilities();
        change(&mut capabilities);
        Subscriber::new(Self { inner, capabilities, progress: None })
    }

    /// One that reads two partitions and says how far it is.
    pub fn with_progress(inner: Subscriber, progress: fn(u32) -> PartitionProgress) -> Subscriber {
        let capabilities = inner.capabilities();
        Subscriber::new(Self { inner, capabilities, progress: Some(Arc::new(Two(progress))) })
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

    fn progress(&self) -> Option<Arc<dyn Progress>> {
        self.progress.clone().map(|progress| progress as _)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("lending", "orders")
    }
}
