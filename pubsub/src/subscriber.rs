//! How an application, or a router on its behalf, receives messages.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::brokers::Brokers;
use crate::driver::{self, Capabilities, Endpoint, Url};
use crate::{Delivery, Error, Publisher, metrics};

/// Receives messages from one topic, queue or subscription. There is one reader: it is not `Clone`. For more, open the
/// same URL again; how readers share is the group's affair.
///
/// Dropping a subscriber ends receiving. Deliveries that are out stay valid where the broker allows it.
pub struct Subscriber {
    driver: Box<dyn driver::Subscriber>,
    endpoint: Endpoint,
    consumed: Counter,
    origin: Option<Origin>,
}

/// Where a subscriber was opened.
#[derive(Clone)]
struct Origin {
    brokers: Brokers,
    url: Url,
}

impl Subscriber {
    /// A subscriber over a driver. [`Brokers`] makes them from URLs.
    pub fn new(driver: impl driver::Subscriber) -> Self {
        Self::over(Box::new(driver), None)
    }

    pub(crate) fn open(driver: Box<dyn driver::Subscriber>, brokers: Brokers, url: Url) -> Self {
        Self::over(driver, Some(Origin { brokers, url }))
    }

    fn over(driver: Box<dyn driver::Subscriber>, origin: Option<Origin>) -> Self {
        let endpoint = driver.endpoint();
        let consumed = metrics::consumed(&endpoint);
        Self { driver, endpoint, consumed, origin }
    }

    /// A subscriber around this one, as test doubles are. It belongs to the same [`Brokers`]: a router has those flushed,
    /// and finds the same place for dead letters.
    pub fn wrap<D: driver::Subscriber>(self, around: impl FnOnce(Self) -> D) -> Self {
        let origin = self.origin.clone();
        Self::over(Box::new(around(self)), origin)
    }

    /// Waits for the next delivery. Cancel-safe: dropping the future loses nothing. `None` means that the subscriber
    /// is closed.
    ///
    /// After an error that [is retryable](Error::is_retryable), calling again after a pause may help.
    pub async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Has deliveries be [committed](Delivery::commit) in transactions from now on. To be called once, before anything is
    /// received; a [`Router`](crate::Router) that is [`exactly_once`](crate::Router::exactly_once) does so by itself.
    ///
    /// Fails with [`Unsupported`](crate::ErrorKind::Unsupported) on a broker without
    /// [`transactions`](Capabilities::transactions).
    pub async fn begin_transactions(&mut self, deadline: Instant) -> Result<(), Error> {
        self.driver.begin_transactions(deadline).await
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
        self.origin.as_ref().map(|origin| &origin.brokers)
    }

    /// Opens the broker's own place for dead letters, if there is one.
    pub(crate) fn dead_letters(&self) -> impl Future<Output = Result<Option<Publisher>, Error>> + Send + 'static {
        let origin = self.origin.as_ref().map(|Origin { brokers, url }| (brokers.clone(), url.clone()));
        async move {
            match origin {
                Some((brokers, url)) => brokers.dead_letters(&url).await,
                None => Ok(None),
            }
        }
    }

    /// Why it receives nothing yet although nothing has failed, where the broker says: what a subscriber [around](Self::wrap)
    /// it passes on.
    pub fn unready(&self) -> Option<String> {
        self.driver.unready()
    }

    /// How far it is in what it reads, where the broker says: what a subscriber [around](Self::wrap) it passes on.
    pub fn progress(&self) -> Option<Arc<dyn driver::Progress>> {
        self.driver.progress()
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        let next = self.driver.poll_next(cx);
        if let Poll::Ready(Ok(Some(_))) = &next {
            self.consumed.inc();
        }
        next
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("driver", &self.driver).finish_non_exhaustive()
    }
}
