//! How an application sends messages.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainspring_observe::correlation;
use tokio::time::{Instant, timeout_at};

use crate::config::PublishConfig;
use crate::delivery::Position;
use crate::driver;
use crate::message::{Message, MessageId};
use crate::metrics::Sent;
use crate::publish::Publish;
use crate::window::Window;
use crate::{Error, ErrorKind};

/// How much later than its deadline a driver's answer for a batch may come.
const LATE: Duration = Duration::from_secs(1);
const TRACEPARENT: &str = "traceparent";

/// Sends messages to one topic or queue. Cheap to clone; clones share one window.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) driver: Box<dyn driver::Publisher>,
    capabilities: driver::Capabilities,
    /// Whether the driver answers in time without being watched.
    pub(crate) keeps_deadlines: bool,
    pub(crate) window: Window,
    pub(crate) sent: Sent,
    system: &'static str,
}

/// The broker's word that it has a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The message's id.
    pub id: MessageId,
    /// Where the message stands, if the broker says.
    pub position: Option<Position>,
}

impl Publisher {
    /// A publisher over a driver, with the default window. [`Brokers`](crate::Brokers) makes them from URLs.
    pub fn new(driver: impl driver::Publisher) -> Self {
        Self::open(Box::new(driver), &PublishConfig::default())
    }

    pub(crate) fn open(driver: Box<dyn driver::Publisher>, config: &PublishConfig) -> Self {
        let endpoint = driver.endpoint();
        let shared = Shared {
            capabilities: driver.capabilities(),
            keeps_deadlines: driver.keeps_deadlines(),
            window: Window::new(config),
            system: endpoint.system,
            sent: Sent::new(endpoint),
            driver,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes a message: `Ok` when the broker has it.
    ///
    /// A message over a limit of the broker is refused before anything is sent. Otherwise this waits for room in the
    /// window, then for the broker, for the window's `timeout` in all (12 s by default; Kafka's client, which looks once
    /// a second, may answer a second later). Dropping the future gives the room back at once; whether the message was sent is
    /// then unknown.
    pub fn publish(&self, message: Message) -> impl Future<Output = Result<Receipt, Error>> + Send {
        Publish::new(&self.shared, message)
    }

    /// Publishes messages in order, and answers for each: one result per message, in the same order. One that fails
    /// does not fail its neighbours.
    ///
    /// What does not fit the window or the broker's batch goes part after part, and each part has the window's `timeout`.
    /// When a part had no answer at all in that time, nothing of those after it is sent.
    pub async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<Receipt, Error>> {
        let results = self.shared.publish_all(messages).await;
        for result in &results {
            self.shared.sent.count(result.as_ref().map(|_| ()));
        }
        results
    }

    /// Waits until everything that was published before this call is confirmed or given up; fails with
    /// [`ErrorKind::Timeout`] when that takes until `deadline`.
    pub async fn flush(&self, deadline: Instant) -> Result<(), Error> {
        self.shared.flush(deadline).await
    }

    /// What the broker can do.
    pub fn capabilities(&self) -> &driver::Capabilities {
        &self.shared.capabilities
    }

    /// Checks a message that others will publish against the limits, and joins it to the trace it is left in.
    pub(crate) fn prepare(&self, message: &mut Message) -> Result<(), Error> {
        self.shared.prepare(message)?;
        self.shared.driver.check(message)
    }

    pub(crate) fn endpoint(&self) -> driver::Endpoint {
        self.shared.driver.endpoint()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    pub(crate) async fn flush(&self, deadline: Instant) -> Result<(), Error> {
        let drained = timeout_at(deadline, self.window.drained()).await.is_ok();
        let left = self.window.used();
        // Also when time is over: it is the driver that gives up what is left, and says what became of it.
        self.driver.flush(deadline).await?;
        if !drained {
            let what = format!("{left} messages were still not confirmed at the deadline");
            return Err(Error::new(ErrorKind::Timeout, "flush", what).with_backend(self.system));
        }
        Ok(())
    }

    async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<Receipt, Error>> {
        let mut results: Vec<Option<Result<Receipt, Error>>> = Vec::with_capacity(messages.len());
        let (mut chunk, mut answers) = (Chunk::default(), true);
        for (at, mut message) in messages.into_iter().enumerate() {
            results.push(None);
            if let Err(error) = self.prepare(&mut message) {
                results[at] = Some(Err(error));
                continue;
            }
            let full = chunk.messages.len() >= self.batch() || chunk.bytes + message.size() > self.window.max_bytes();
            if full && !chunk.messages.is_empty() {
                let chunk = std::mem::take(&mut chunk);
                answers = answers && self.send(chunk, &mut results).await;
            }
            chunk.bytes += message.size();
            chunk.places.push(at);
            chunk.messages.push(message);
        }
        if answers && !chunk.messages.is_empty() {
            self.send(chunk, &mut results).await;
        }
        let unsent = || Err(Error::unsent(self.system, "there was no answer in time for those before it"));
        results.into_iter().map(|result| result.unwrap_or_else(unsent)).collect()
    }

    /// Sends one part; whether the broker answered for any of it.
    async fn send(&self, chunk: Chunk, results: &mut [Option<Result<Receipt, Error>>]) -> bool {
        let deadline = self.window.deadline();
        let answers = match timeout_at(deadline, self.window.enter(chunk.messages.len(), chunk.bytes)).await {
            Err(_) => Vec::from_iter(chunk.places.iter().map(|_| Err(self.window_full()))),
            Ok(_permit) => {
                let answers = self.driver.publish_all(chunk.messages, deadline);
                timeout_at(deadline + LATE, answers).await.unwrap_or_default()
            }
        };
        let mut answers = answers.into_iter();
        let mut answered = false;
        for place in chunk.places {
            let answer = answers.next().unwrap_or_else(|| Err(self.unconfirmed()));
            answered |= !matches!(&answer, Err(error) if error.kind() == ErrorKind::Timeout);
            results[place] = Some(answer);
        }
        answered
    }

    pub(crate) fn window_full(&self) -> Error {
        Error::unsent(self.system, &self.window)
    }

    pub(crate) fn unconfirmed(&self) -> Error {
        Error::unconfirmed(self.system)
    }

    fn batch(&self) -> usize {
        self.capabilities.limits.batch.unwrap_or(usize::MAX).min(self.window.max_messages())
    }

    /// Checks the message against the broker's limits, and joins it to the trace it is published in.
    pub(crate) fn prepare(&self, message: &mut Message) -> Result<(), Error> {
        let limits = &self.capabilities.limits;
        if !message.attributes.contains_key(TRACEPARENT)
            && let Some(trace) = correlation::trace()
        {
            let traceparent = String::from_utf8_lossy(&trace.traceparent()).into_owned();
            let size = message.size() + TRACEPARENT.len() + traceparent.len();
            // What is as large as it may be is not refused for what it was not given.
            if limits.message_bytes.is_none_or(|most| size <= most)
                && limits.attributes.is_none_or(|most| message.attributes.len() < most)
            {
                message.attributes.insert(TRACEPARENT.to_owned(), traceparent);
            }
        }
        let key = message.key.as_ref().map_or(0, String::len);
        self.expect_within(limits.message_bytes, message.size(), "message", "bytes of body, key and attributes")?;
        self.expect_within(limits.key_bytes, key, "key", "bytes")?;
        self.expect_within(limits.attributes, message.attributes.len(), "message", "attributes")?;
        if message.attributes.contains_key("") {
            let what = "an attribute has no name";
            return Err(Error::new(ErrorKind::Invalid, "publish", what).with_backend(self.system));
        }
        Ok(())
    }

    fn expect_within(&self, limit: Option<usize>, is: usize, what: &str, unit: &str) -> Result<(), Error> {
        match limit {
            Some(limit) if is > limit => {
                let what = format!("the {what} has {is} {unit}, the limit is {limit}");
                Err(Error::new(ErrorKind::TooLarge, "publish", what).with_backend(self.system))
            }
            _ => Ok(()),
        }
    }
}

/// Messages on their way together, and whose results they are.
#[derive(Default)]
struct Chunk {
    places: Vec<usize>,
    messages: Vec<Message>,
    bytes: usize,
}

impl Receipt {
    /// A receipt without a position.
    pub fn new(id: MessageId) -> Self {
        Self { id, position: None }
    }

    /// Sets where the message stands.
    pub fn with_position(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("driver", &self.shared.driver).finish_non_exhaustive()
    }
}
