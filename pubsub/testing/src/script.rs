//! A subscriber that says its lines.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Lease, Outcome, Position};
use mainspring_pubsub::{Confirmation, Delivery, Error, ErrorKind, Message, MessageId, Subscriber};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, timeout};

const SYSTEM: &str = "script";

/// A subscriber's lines, said in order: messages, errors, pauses. What comes after the last line is silence, or the end.
///
/// What is nacked or dropped does not come again: the script says what comes.
///
/// ```
/// use mainspring_pubsub::{ErrorKind, Message};
/// use mainspring_testing::Script;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let script = Script::new().error(ErrorKind::Unavailable).message(Message::new("a")).closed();
/// let (mut inbox, settlements) = script.subscriber();
/// assert!(inbox.next().await.is_err());
/// inbox.next().await.unwrap().unwrap().ack();
/// assert!(inbox.next().await.unwrap().is_none());
/// assert_eq!(settlements.wait_for(1).await.len(), 1);
/// # }
/// ```
#[derive(Debug)]
pub struct Script {
    lines: VecDeque<Line>,
    capabilities: Capabilities,
}

#[derive(Debug)]
enum Line {
    Message { message: Message, attempt: u32, lost: bool },
    Error(ErrorKind, bool),
    Pause(Duration),
    Closed,
}

/// How the script's deliveries were settled.
#[derive(Clone, Default)]
pub struct Settlements {
    shared: Arc<Shared>,
}

/// How one delivery was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// The message.
    pub id: MessageId,
    /// Its place among the script's messages, from 0.
    pub index: u64,
    /// How.
    pub outcome: Outcome,
}

#[derive(Default)]
struct Shared {
    settled: Mutex<Vec<Settled>>,
    more: Notify,
}

impl Script {
    /// A script without lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims these capabilities, instead of [`reject`](Capabilities::reject) alone. Outcomes that they leave out are answered with
    /// [`Unsupported`](ErrorKind::Unsupported), and recorded all the same.
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A message, delivered for the first time.
    pub fn message(self, message: Message) -> Self {
        self.attempt(message, 1)
    }

    /// A message, delivered for the `attempt`th time.
    pub fn attempt(mut self, message: Message, attempt: u32) -> Self {
        self.lines.push_back(Line::Message { message, attempt, lost: false });
        self
    }

    /// A message whose lease is lost before it is settled: settling and extending answer [`Lost`](ErrorKind::Lost).
    pub fn lost(mut self, message: Message) -> Self {
        self.lines.push_back(Line::Message { message, attempt: 1, lost: true });
        self
    }

    /// An error of this kind, retryable if such errors usually are.
    pub fn error(mut self, kind: ErrorKind) -> Self {
        let retryable = Error::new(kind, "receive", "").is_retryable();
        self.lines.push_back(Line::Error(kind, retryable));
        self
    }

    /// Silence for this long.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.lines.push_back(Line::Pause(pause));
        self
    }

    /// The end: from here on the subscriber is closed.
    pub fn closed(mut self) -> Self {
        self.lines.push_back(Line::Closed);
        self
    }

    /// The subscriber, and what becomes of its deliveries.
    pub fn subscriber(self) -> (Subscriber, Settlements) {
        let settlements = Settlements::default();
        let Self { lines, capabilities } = self;
        let settled = settlements.clone();
        let actor = Actor { lines, capabilities, settled, next: 0, pause: None, closed: false, waker: None };
        (Subscriber::new(actor), settlements)
    }
}

/// Its broker keeps what is rejected, or no router would take it without a place for dead letters; it can do nothing
/// else.
impl Default for Script {
    fn default() -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.reject = true;
        Self { lines: VecDeque::new(), capabilities }
    }
}

impl Settlements {
    /// What was settled so far, in order.
    pub fn so_far(&self) -> Vec<Settled> {
        self.lock().clone()
    }

    /// Waits until `count` deliveries are settled, and answers all settlements.
    ///
    /// # Panics
    /// When that takes longer than 30 s of tokio's clock.
    pub async fn wait_for(&self, count: usize) -> Vec<Settled> {
        let settled = async {
            loop {
                let mut more = std::pin::pin!(self.shared.more.notified());
                more.as_mut().enable();
                let settled = self.so_far();
                if settled.len() >= count {
                    return settled;
                }
                more.await;
            }
        };
        let settled = timeout(Duration::from_secs(30), settled).await;
        settled.unwrap_or_else(|_| panic!("{} of {count} deliveries were settled in 30 s", self.so_far().len()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Settled>> {
        self.shared.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver that says the lines.
struct Actor {
    lines: VecDeque<Line>,
    capabilities: Capabilities,
    settled: Settlements,
    next: u64,
    pause: Option<Pin<Box<Sleep>>>,
    closed: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct ScriptLease {
    id: MessageId,
    index: u64,
    lost: bool,
    capabilities: Capabilities,
    settled: Settlements,
}

#[async_trait::async_trait]
impl driver::Subscriber for Actor {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        loop {
            if self.closed {
                return Poll::Ready(Ok(None));
            }
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.lines.pop_front() {
                Some(Line::Message { message, attempt, lost }) => {
                    let index = self.next;
                    self.next += 1;
                    let (id, capabilities, settled) =
                        (message.id.clone(), self.capabilities.clone(), self.settled.clone());
                    let delivery =
                        Delivery::new(message, Box::new(ScriptLease { id, index, lost, capabilities, settled }));
                    let delivery = delivery.with_attempt(attempt).with_position(Position::new(0, index));
                    return Poll::Ready(Ok(Some(delivery)));
                }
                Some(Line::Error(kind, retryable)) => {
                    let error = Error::new(kind, "receive", "as the script says").with_backend(SYSTEM);
                    return Poll::Ready(Err(error.with_retryable(retryable)));
                }
                Some(Line::Pause(pause)) => self.pause = Some(Box::pin(sleep(pause))),
                Some(Line::Closed) => self.closed = true,
                None => {
                    self.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }

    async fn close(&mut self, _deadline: Instant) -> Result<(), Error> {
        self.closed = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(SYSTEM, "script")
    }
}

impl Lease for ScriptLease {
    fn settle(self: Box<Self>, outcome: Outcome) -> Confirmation {
        let Self { id, index, lost, capabilities, settled } = *self;
        let supported = match &outcome {
            Outcome::Nack { after: Some(_) } => capabilities.nack_delay,
            Outcome::Nack { after: None } => capabilities.nack,
            Outcome::Reject { .. } => capabilities.reject,
            _ => true,
        };
        settled.lock().push(Settled { id, index, outcome });
        settled.shared.more.notify_waiters();
        match (lost, supported) {
            (true, _) => Confirmation::lost(SYSTEM),
            (false, true) => Confirmation::settled(),
            (false, false) => Confirmation::failed(unsupported("settle")),
        }
    }

    fn extend(&self, _by: Duration) -> Confirmation {
        match (self.lost, self.capabilities.extend) {
            (true, _) => Confirmation::lost(SYSTEM),
            (false, true) => Confirmation::settled(),
            (false, false) => Confirmation::failed(unsupported("extend")),
        }
    }

    fn expires(&self) -> Option<Instant> {
        None
    }
}

fn unsupported(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, operation, "not among the script's capabilities").with_backend(SYSTEM)
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Settlements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settlements").field(&self.so_far()).finish()
    }
}
