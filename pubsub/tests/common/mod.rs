//! What the tests have in common.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

pub mod lending;
pub mod partition;
pub mod scripted;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainspring_daemon::{Context, Trigger};
use mainspring_pubsub::{Brokers, BrokersConfig, Delivery, Error, Message, Publisher, Router, Subscriber};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Long enough for anything that is going to happen, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn brokers() -> Brokers {
    let mut config = BrokersConfig::default();
    // It stands in for a broker that outlives the process, except where a test says otherwise.
    config.memory.volatile = false;
    Brokers::new(&config).unwrap()
}

/// As above, with a broker that is gone with the process.
pub async fn volatile_orders() -> (Brokers, Publisher, Subscriber) {
    let brokers = Brokers::new(&BrokersConfig::default()).unwrap();
    let publisher = brokers.publisher("memory://orders").await.unwrap();
    let subscriber = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    (brokers, publisher, subscriber)
}

/// A publisher and a subscriber of a fresh `memory://orders`.
pub async fn orders() -> (Brokers, Publisher, Subscriber) {
    let brokers = brokers();
    let publisher = brokers.publisher("memory://orders").await.unwrap();
    let subscriber = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    (brokers, publisher, subscriber)
}

/// The next delivery, which has to come.
pub async fn next(subscriber: &mut Subscriber) -> Delivery {
    let next = timeout(PATIENCE, subscriber.next()).await.expect("a delivery in time");
    next.unwrap().expect("the subscriber is open")
}

/// Nothing is there to be received at this moment.
pub fn assert_empty(subscriber: &mut Subscriber) {
    let received = futures_util::FutureExt::now_or_never(subscriber.next());
    assert!(received.is_none(), "unexpected delivery: {received:?}");
}

pub fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().body.to_vec()).unwrap()
}

pub fn body(message: &Message) -> String {
    String::from_utf8(message.body.to_vec()).unwrap()
}

/// A router at work.
pub struct Running {
    pub cx: Context,
    trigger: Trigger,
    task: JoinSet<Result<(), Error>>,
}

pub fn start(router: Router) -> Running {
    let (trigger, cx) = Context::test("ship");
    let mut task = JoinSet::new();
    task.spawn(router.run(cx.clone()));
    Running { cx, trigger, task }
}

impl Running {
    /// Requests a stop with this much time for finishing.
    pub fn request_stop(&self, budget: Duration) {
        self.trigger.request(Instant::now() + budget);
    }

    /// Says that no request will be made any more.
    pub fn requests_finished(&self) {
        self.trigger.requests_finished();
    }

    /// Waits for the router to end.
    pub async fn ended(&mut self) -> Result<(), Error> {
        let ended = timeout(PATIENCE * 3, self.task.join_next()).await.expect("the router ends in time");
        ended.expect("one router").expect("no panic")
    }

    pub async fn stop(mut self) {
        self.request_stop(PATIENCE);
        self.ended().await.unwrap();
    }

    /// Drops the router's future, as a server does that is out of time.
    pub async fn abort(mut self) {
        self.task.shutdown().await;
    }

    pub fn tally(&self, key: &'static str) -> u64 {
        self.cx.tally(key).get()
    }
}

/// What handlers saw, to be waited for.
pub struct Log<T> {
    sender: mpsc::UnboundedSender<T>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<T>>>,
}

pub fn log<T>() -> Arc<Log<T>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    Arc::new(Log { sender, receiver: Mutex::new(Some(receiver)) })
}

impl<T> Log<T> {
    pub fn note(&self, entry: T) {
        self.sender.send(entry).ok();
    }

    /// Waits for `count` more entries.
    pub async fn wait(&self, count: usize) -> Vec<T> {
        let mut receiver = self.receiver.lock().unwrap().take().expect("one waits at a time");
        let mut entries = Vec::new();
        while entries.len() < count {
            let entry = timeout(PATIENCE, receiver.recv()).await;
            let entry = entry.unwrap_or_else(|_| panic!("only {} of {count} entries came", entries.len()));
            entries.push(entry.unwrap());
        }
        *self.receiver.lock().unwrap() = Some(receiver);
        entries
    }

    /// What is there now.
    pub fn rest(&self) -> Vec<T> {
        let mut entries = Vec::new();
        let mut receiver = self.receiver.lock().unwrap();
        while let Ok(entry) = receiver.as_mut().unwrap().try_recv() {
            entries.push(entry);
        }
        entries
    }
}
