//! A broker in the test that waits for facts.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use mainspring_pubsub::{Brokers, BrokersConfig, Error, Message, Publisher, Receipt, Router, Subscriber, memory};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::observed::{Observed, Observer};
use crate::running::Running;

/// The memory broker, and everything that happens on it: tests wait until all messages are settled instead of sleeping.
///
/// It opens publishers and subscribers directly, or is handed to the code under test as [`brokers`](Self::brokers),
/// where `memory://orders?group=ship` opens the same ones. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Harness {
    observed: Observed,
    brokers: Brokers,
    patience: Duration,
    /// Whether the routers that were started have failed.
    failures: Arc<Mutex<Vec<Failure>>>,
}

/// The error of a router that has ended with one.
type Failure = watch::Receiver<Option<String>>;

/// How deliveries ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handled.
    pub acked: u64,
    /// Failed, to be delivered again.
    pub nacked: u64,
    /// Given up, and now in `<topic>.dead`.
    pub rejected: u64,
    /// Handed back without being handled.
    pub returned: u64,
    /// Settled after the lease had run out.
    pub lost: u64,
}

impl Harness {
    /// A harness on a memory broker with the default configuration.
    pub fn new() -> Self {
        Self::with(BrokersConfig::default())
    }

    /// A harness on a memory broker with this configuration.
    ///
    /// # Panics
    /// When the configuration cannot work.
    pub fn with(config: BrokersConfig) -> Self {
        let observer = Arc::new(Observer::new(config.memory.clone()));
        let observed = Observed::new(memory::Broker::new(config.memory.clone()), observer);
        let brokers = Brokers::new(&config).unwrap_or_else(|error| panic!("the configuration cannot work: {error:?}"));
        let brokers = brokers.register("memory", observed.clone());
        Self { observed, brokers, patience: Duration::from_secs(30), failures: Arc::default() }
    }

    /// How long [`settled`](Self::settled) waits, by tokio's clock. 30 s by default; on a paused clock hours cost
    /// nothing.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What the code under test opens its URLs with.
    pub fn brokers(&self) -> Brokers {
        self.brokers.clone()
    }

    /// A publisher to `topic`.
    pub fn publisher(&self, topic: &str) -> Publisher {
        self.observed.open_publisher(topic)
    }

    /// A subscriber of `group` in `topic`.
    pub fn subscriber(&self, topic: &str, group: &str) -> Subscriber {
        self.observed.open_subscriber(topic, group)
    }

    /// Publishes one message.
    ///
    /// # Panics
    /// When the broker refuses it; see [`try_publish`](Self::try_publish).
    pub async fn publish(&self, topic: &str, message: Message) -> Receipt {
        let published = self.try_publish(topic, message).await;
        published.unwrap_or_else(|error| panic!("cannot publish to `{topic}`: {error:?}"))
    }

    /// Publishes one message.
    pub async fn try_publish(&self, topic: &str, message: Message) -> Result<Receipt, Error> {
        self.publisher(topic).publish(message).await
    }

    /// Starts a router. Dropping what comes back aborts it.
    pub fn start(&self, router: Router) -> Running {
        let running = Running::start(router);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|failure| failure.has_changed().is_ok());
        failures.push(running.failed());
        running
    }

    /// What was published to `topic` so far, in order; `<topic>.dead` has what was rejected.
    pub fn published(&self, topic: &str) -> Vec<Message> {
        self.observed.observer().published(topic)
    }

    /// How deliveries have ended so far.
    pub fn tally(&self) -> Tally {
        self.observed.observer().tally()
    }

    /// Waits until every message is acked or rejected in every group, and answers how all deliveries ended. Messages
    /// in topics without any group are not waited for.
    ///
    /// # Panics
    /// When that takes longer than the harness has [patience](Self::with_patience); it names the messages that are left.
    /// And at once when a router that was [started](Self::start) here, and is still there, has panicked, or has ended
    /// with an error that nobody has asked for: nobody would handle what is left.
    pub async fn settled(&self) -> Tally {
        let failed = self.failed();
        tokio::select! {
            biased;
            settled = self.settled_within(self.patience) => match settled {
                Ok(tally) => tally,
                Err(left) => {
                    let patience = self.patience;
                    panic!("not everything was settled in {patience:?}, see `Harness::with_patience`: {left}")
                }
            },
            error = failed => panic!("a router has failed: {error}; what it leaves: {}", self.observed.observer().left()),
        }
    }

    /// Waits until every message is acked or rejected in every group, for at most `limit`; else says what is left.
    pub async fn settled_within(&self, limit: Duration) -> Result<Tally, String> {
        let observer = self.observed.observer();
        match timeout(limit, observer.all_settled()).await {
            Ok(()) => Ok(observer.tally()),
            Err(_) => Err(observer.left()),
        }
    }

    /// The error of the first router that fails.
    async fn failed(&self) -> String {
        let failures: Vec<_> = {
            let known = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            // One that was dropped is of no interest any more.
            known.iter().filter(|failure| failure.has_changed().is_ok()).cloned().collect()
        };
        let first = async |mut failure: Failure| match failure.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_default(),
            Err(_) => pending().await,
        };
        match failures.is_empty() {
            true => pending().await,
            false => select_all(failures.into_iter().map(|failure| Box::pin(first(failure)))).await.0,
        }
    }
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}
