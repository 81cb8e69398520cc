//! RustStream's dispatch as a mark beside ours: the same message, a handler that does as little, the ack in the same
//! place, on one thread.
//!
//! What it does for a message: it catches panics, and acks. It has neither timeouts nor metrics nor a ledger of what is
//! in flight, and by default it handles one message at a time; keyed workers keep order within a key, as our lanes do.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures_util::{Stream, stream};
use ruststream::memory::prelude::*;
use ruststream::memory::{ConnectedMemoryBroker, MemoryError};
use ruststream::runtime::{IntoSource, RustStream};
use ruststream::{
    AckError, AddressedCopies, HeaderMap, RedeliveryAddress, RedeliveryAddressed, Subscriber, SubscriptionSource,
};
use tokio::sync::Notify;

use crate::messages::{BODY, Item, Supply};

/// Sends messages through RustStream's dispatcher; to a handler that takes them as bytes, or as JSON, with so many
/// workers. Calls `mark` after the warm-up and after each window.
pub(crate) async fn dispatch(json: bool, workers: usize, mark: Box<dyn FnMut() + Send>) {
    let over = Arc::new(Notify::new());
    let stock = Stock { supply: Arc::new(Mutex::new(Some(Supply::new(mark)))), over: Arc::clone(&over) };
    let workers = NonZeroUsize::new(workers).expect("there is a worker");
    let app = RustStream::new(AppInfo::new("bench", "0.0.0")).with_broker(MemoryBroker::new(), |broker| {
        if json {
            broker.include(subscriber(stock, OnItem).workers_by_key(workers).build());
        } else {
            broker.include(subscriber(stock, OnFrame).workers_by_key(workers).build());
        }
    });
    let running = app.start().await.expect("the service starts");
    over.notified().await;
    running.shutdown().await.expect("the service ends in order");
}

/// The body as it came.
struct Frame<'a>(&'a [u8]);

impl Deserialized for Frame<'_> {
    type Output<'a> = Frame<'a>;
    type Error = Infallible;

    fn from_payload(payload: &[u8]) -> Result<Frame<'_>, Infallible> {
        Ok(Frame(payload))
    }
}

impl Input for Frame<'_> {
    type Axis = SoloDeserialized<Frame<'static>>;
}

struct OnFrame;

impl<'p> Handle<Frame<'p>> for OnFrame {
    async fn handle(&self, frame: &Frame<'p>, _outs: &(), _cx: &mut Context<'_>) -> Result<(), HandlerOutcome> {
        std::hint::black_box(frame.0);
        Ok(())
    }
}

struct OnItem;

impl Handle<Item> for OnItem {
    async fn handle(&self, item: &Item, _outs: &(), _cx: &mut Context<'_>) -> Result<(), HandlerOutcome> {
        std::hint::black_box((item.id, item.qty));
        Ok(())
    }
}

/// A source that has the same message ready again and again, and needs no settlement.
#[derive(Clone)]
struct Stock {
    /// Whoever subscribes takes it.
    supply: Arc<Mutex<Option<Supply>>>,
    over: Arc<Notify>,
}

struct Content {
    body: Bytes,
    headers: HeaderMap,
}

struct Stocked(Arc<Content>);

impl IntoSource for Stock {
    type Source = Self;

    fn into_source(self) -> Self {
        self
    }
}

impl SubscriptionSource<ConnectedMemoryBroker> for Stock {
    type Subscriber = Self;
    type Copies = AddressedCopies;

    fn name(&self) -> &str {
        "bench"
    }

    async fn subscribe(self, _connected: &ConnectedMemoryBroker) -> Result<Self, MemoryError> {
        Ok(self)
    }
}

impl RedeliveryAddressed<ConnectedMemoryBroker> for Stock {
    async fn redelivery_address(&self, _connected: &ConnectedMemoryBroker) -> Result<RedeliveryAddress, MemoryError> {
        Ok(RedeliveryAddress::new("bench"))
    }
}

impl Subscriber for Stock {
    type Message = Stocked;
    type Error = Infallible;

    fn stream(&mut self) -> impl Stream<Item = Result<Stocked, Infallible>> + Send + '_ {
        let content = Arc::new(Content { body: Bytes::from_static(BODY), headers: HeaderMap::new() });
        let supply = self.supply.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut supply = supply.expect("there is one subscription");
        stream::poll_fn(move |_| {
            if supply.next() {
                return Poll::Ready(Some(Ok(Stocked(Arc::clone(&content)))));
            }
            self.over.notify_one();
            Poll::Ready(None)
        })
    }
}

impl IncomingMessage for Stocked {
    fn payload(&self) -> &[u8] {
        &self.0.body
    }

    fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    async fn ack(self) -> Result<(), AckError> {
        Ok(())
    }

    async fn nack(self, _requeue: bool) -> Result<(), AckError> {
        Ok(())
    }
}
