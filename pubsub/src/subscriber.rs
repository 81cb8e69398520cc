//! How an application, or a router on its behalf, receives messages.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::brokers::Brokers;
use crate::driver::{self, Capabilities, Endpoint};
use crate::{Delivery, Error, metrics};

/// Receives messages from one topic, queue or subscription. There is one reader: it is not `Clone`. For more, open the
/// same URL again; how readers share is the group's affair.
///
/// Dropping a subscriber ends receiving. Deliveries that are out stay valid where the broker allows it.
pub struct Subscriber {
    driver: Box<dyn driver::Subscriber>,
    endpoint: Endpoint,
    consumed: Counter,
    brokers: Option<Brokers>,
}

impl Subscriber {
    /// A subscriber over a driver. [`Brokers`] makes them from URLs.
    pub fn new(driver: impl driver::Subscriber) -> Self {
        Self::open(Box::new(driver), None)
    }

    pub(crate) fn open(driver: Box<dyn driver::Subscriber>, brokers: Option<Brokers>) -> Self {
        let endpoint = driver.endpoint();
        let consumed = metrics::consumed(&endpoint);
        Self { driver, endpoint, consumed, brokers }
    }

    /// Waits for the next delivery. Cancel-safe: dropping the future loses nothing. `None` means that the subscriber
    /// is closed.
    ///
    /// After an error that [is retryable](Error::is_retryable), calling again after a pause may help.
    pub async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Stops receiving, gives back what was fetched and not handed out, and sends settlements that are still on their
    /// way, all until `deadline`. Afterwards [`next`](Self::next) answers `None`.
    pub async fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        self.driver.close(deadline).await
    }

    /// What the broker can do.
    pub fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn brokers(&self) -> Option<&Brokers> {
        self.brokers.as_ref()
    }

    pub(crate) fn is_worked_off(&self) -> bool {
        self.driver.is_worked_off()
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        let next = ready!(self.driver.poll_next(cx))?;
        if next.is_some() {
            self.consumed.inc();
        }
        Poll::Ready(Ok(next))
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("driver", &self.driver).finish_non_exhaustive()
    }
}
