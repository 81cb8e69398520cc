//! The paths that a message takes through the kit, each with a broker that costs as little as possible.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use mainspring_pubsub::driver::{self, Capabilities, Confirmation, Delivery, Endpoint, Lease, Outcome};
use mainspring_pubsub::{Bytes, Error, Failure, Json, Message, Router, Subscriber, memory};
use serde::Deserialize;
use tokio::time::Instant;

use crate::peer;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Published to the broker in memory, handled, acked.
    Memory,
    /// The same with one of a hundred keys.
    MemoryKeyed,
    /// From a driver that has it ready to a handler that takes the bytes, and back: the router alone.
    Dispatch,
    /// The same with a handler that takes it as JSON.
    DispatchJson,
    /// The same with a traceparent and a key, as messages of a larger system have them.
    DispatchTraced,
    /// What RustStream needs for [`Dispatch`](Self::Dispatch), one message at a time.
    RustStream,
    /// What RustStream needs for [`DispatchJson`](Self::DispatchJson), one message at a time.
    RustStreamJson,
    /// What RustStream needs for [`Dispatch`](Self::Dispatch) with as many keyed workers as a route has lanes.
    RustStreamKeyed,
}

/// Messages of one window.
pub const WINDOW: usize = 5000;
/// Messages before the first.
const WARM_UP: usize = 2000;
const WINDOWS: usize = 3;
/// Messages that are published before they are waited for.
const BURST: usize = 64;
pub(crate) const BODY: &[u8] = br#"{"id":7,"qty":3}"#;

impl Path {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Memory,
        Self::MemoryKeyed,
        Self::Dispatch,
        Self::DispatchJson,
        Self::DispatchTraced,
        Self::RustStream,
        Self::RustStreamJson,
        Self::RustStreamKeyed,
    ];

    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::MemoryKeyed => "memory-keyed",
            Self::Dispatch => "dispatch",
            Self::DispatchJson => "dispatch-json",
            Self::DispatchTraced => "dispatch-traced",
            Self::RustStream => "ruststream",
            Self::RustStreamJson => "ruststream-json",
            Self::RustStreamKeyed => "ruststream-keyed",
        }
    }

    /// Whether it is a peer's: something to measure ours by, and nothing that we could make cheaper.
    pub fn is_mark(self) -> bool {
        matches!(self, Self::RustStream | Self::RustStreamJson | Self::RustStreamKeyed)
    }

    /// Sends messages this way, on one thread; calls `mark` after the warm-up and after each window.
    pub fn run(self, mut mark: impl FnMut() + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be had");
        runtime.block_on(async move {
            match self {
                Self::Memory | Self::MemoryKeyed => memory(self == Self::MemoryKeyed, &mut mark).await,
                Self::Dispatch => {
                    dispatch(Message::new(BODY), Box::new(mark), |from| {
                        Router::new().route("bench", from, async |_body: Bytes| Ok::<(), Failure>(()))
                    })
                    .await
                }
                Self::DispatchJson => {
                    dispatch(Message::new(BODY), Box::new(mark), |from| {
                        Router::new().route("bench", from, async |Json(item): Json<Item>| {
                            std::hint::black_box((item.id, item.qty));
                            Ok::<(), Failure>(())
                        })
                    })
                    .await
                }
                Self::DispatchTraced => {
                    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
                    let message = Message::new(BODY).with_key("k").with_attribute("traceparent", traceparent);
                    dispatch(message, Box::new(mark), |from| {
                        Router::new().route("bench", from, async |_body: Bytes| Ok::<(), Failure>(()))
                    })
                    .await;
                }
                Self::RustStream => peer::dispatch(false, 1, Box::new(mark)).await,
                Self::RustStreamJson => peer::dispatch(true, 1, Box::new(mark)).await,
                Self::RustStreamKeyed => peer::dispatch(false, 16, Box::new(mark)).await,
            }
        });
    }
}

/// What the bodies say.
#[derive(Deserialize)]
pub(crate) struct Item {
    pub(crate) id: u64,
    pub(crate) qty: u32,
}

/// Counts the messages of a run out.
pub(crate) struct Supply {
    given: usize,
    mark: Box<dyn FnMut() + Send>,
}

impl Supply {
    pub(crate) fn new(mark: Box<dyn FnMut() + Send>) -> Self {
        Self { given: 0, mark }
    }

    /// Whether there is another message. Calls `mark` between windows.
    pub(crate) fn next(&mut self) -> bool {
        if self.given >= WARM_UP && (self.given - WARM_UP).is_multiple_of(WINDOW) {
            (self.mark)();
        }
        self.given += 1;
        self.given <= WARM_UP + WINDOWS * WINDOW
    }
}

/// A driver that has the same message ready again and again, and needs no settlement.
struct Stock {
    message: Arc<Message>,
    supply: Supply,
}

#[derive(Debug)]
struct NoLease;

async fn dispatch(message: Message, mark: Box<dyn FnMut() + Send>, router: impl FnOnce(Subscriber) -> Router) {
    let from = Subscriber::new(Stock { message: Arc::new(message), supply: Supply::new(mark) });
    let (_trigger, cx) = mainspring_daemon::Context::test("bench");
    router(from).run(cx).await.expect("a router ends in order when its subscriber is closed");
}

async fn memory(keyed: bool, mark: &mut (dyn FnMut() + Send)) {
    let broker = memory::Broker::new(memory::Config::default());
    let (publisher, from) = (broker.publisher("bench"), broker.subscriber("bench", "bench"));
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let handler = move |_body: Bytes| {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok::<(), Failure>(()))
    };
    let (trigger, cx) = mainspring_daemon::Context::test("bench");
    let running = Router::new().route("bench", from, handler).run(cx);
    let mut router = tokio::task::JoinSet::new();
    router.spawn(running);
    let keys: Vec<String> = (0..100).map(|key| format!("key-{key}")).collect();
    for sent in 1..=WARM_UP + WINDOWS * WINDOW {
        let mut message = Message::new(BODY);
        if keyed {
            message.key = Some(keys[sent % keys.len()].clone());
        }
        publisher.publish(message).await.expect("the broker has room");
        let window_is_over = sent >= WARM_UP && (sent - WARM_UP).is_multiple_of(WINDOW);
        if sent.is_multiple_of(BURST) || window_is_over {
            while handled.load(Ordering::Relaxed) < sent {
                tokio::task::yield_now().await;
            }
        }
        if window_is_over {
            mark();
        }
    }
    trigger.request(Instant::now() + Duration::from_secs(10));
    trigger.requests_finished();
    router.join_next().await.expect("the router runs").expect("it does not panic").expect("it ends in order");
}

#[async_trait]
impl driver::Subscriber for Stock {
    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        if !self.supply.next() {
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(Ok(Some(Delivery::new(Arc::clone(&self.message), Box::new(NoLease)))))
    }

    async fn close(&mut self, _deadline: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        // The router refuses sources that cannot keep what is given up.
        let mut can = Capabilities::default();
        can.reject = true;
        can
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("stock", "bench")
    }
}

impl Lease for NoLease {
    fn settle(self: Box<Self>, _outcome: Outcome) -> Confirmation {
        Confirmation::settled()
    }

    fn extend(&self, _by: Duration) -> Confirmation {
        Confirmation::settled()
    }

    fn expires(&self) -> Option<Instant> {
        None
    }
}

impl std::fmt::Debug for Stock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stock").field("given", &self.supply.given).finish_non_exhaustive()
    }
}
