//! What handlers have done, and whether that is what they should have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainspring_daemon::{Context, Trigger};
use mainspring_pubsub::{Error, Failure, Router, Subscriber, Text};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::PATIENCE;

/// Messages that a router handles at once.
pub const CONCURRENCY: usize = 32;

/// The numbers that were handled, as they were.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Vec<usize>>>);

/// A router that handles into a history.
pub struct Member {
    cx: Context,
    trigger: Trigger,
    running: JoinSet<Result<(), Error>>,
}

impl History {
    pub fn add(&self, number: usize) {
        self.0.lock().unwrap().push(number);
    }

    pub fn distinct(&self) -> usize {
        self.0.lock().unwrap().iter().collect::<BTreeSet<_>>().len()
    }

    /// Waits until `count` different numbers were handled.
    pub async fn wait_for(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.distinct() < count {
            assert!(Instant::now() < end, "lost: {} of {count} were handled", self.distinct());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How often numbers were handled again.
    pub fn duplicates(&self) -> usize {
        let handled = self.0.lock().unwrap().len();
        handled - self.distinct()
    }

    /// Numbers with the same rest by `keys` have to be in order, duplicates apart.
    pub fn assert_ordered(&self, keys: usize) {
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for number in self.0.lock().unwrap().iter().filter(|number| seen.insert(**number)) {
            let before = last.insert(number % keys, *number);
            assert!(before.is_none_or(|before| before < *number), "{number} was handled after {before:?}");
        }
    }

    /// A router that handles what comes from `inbox`, each for 5 to 50 ms.
    pub fn router(&self, name: &'static str, inbox: Subscriber) -> Router {
        let history = self.clone();
        let handler = move |Text(text): Text| {
            let history = history.clone();
            async move {
                let number: usize = text.parse()?;
                sleep(Duration::from_millis(5 + (number as u64 * 7919) % 46)).await;
                history.add(number);
                Ok::<_, Failure>(())
            }
        };
        Router::new().route(name, inbox, handler).concurrency(CONCURRENCY)
    }

    /// The same, at work.
    pub fn member(&self, inbox: Subscriber) -> Member {
        let router = self.router("member", inbox);
        let (trigger, cx) = Context::test("member");
        let mut running = JoinSet::new();
        running.spawn(router.run(cx.clone()));
        Member { cx, trigger, running }
    }
}

impl Member {
    pub async fn stop(mut self) {
        self.trigger.request(Instant::now() + PATIENCE);
        self.running.join_next().await.unwrap().unwrap().unwrap();
        for flush in self.cx.board().take_flushes() {
            flush.run().await.expect("everything that was acked is committed");
        }
    }
}
