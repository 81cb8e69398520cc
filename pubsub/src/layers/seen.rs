//! Which messages have been handled before.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mainspring_daemon::BoxError;
use tokio::time::Instant;

/// Remembers what has been handled, for [`Dedup`](super::Dedup): a table, a cache, a set.
#[async_trait]
pub trait Seen: fmt::Debug + Send + Sync + 'static {
    /// Whether `key` was remembered before. An error has the message tried again.
    async fn contains(&self, key: &str) -> Result<bool, BoxError>;

    /// Remembers `key`. After an error the message counts as handled all the same; should it come again, it is handled
    /// again.
    async fn insert(&self, key: &str) -> Result<(), BoxError>;
}

/// Remembers in memory, up to a number of keys and for a time. It is forgotten with the process.
#[derive(Clone)]
pub struct SeenInMemory {
    capacity: usize,
    keep: Duration,
    keys: Arc<Mutex<Keys>>,
}

#[derive(Default)]
struct Keys {
    until: HashMap<Arc<str>, Instant>,
    /// In the order in which they are forgotten.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl SeenInMemory {
    /// Remembers the newest `capacity` keys, each for `keep`.
    pub fn new(capacity: usize, keep: Duration) -> Self {
        Self { capacity, keep, keys: Arc::default() }
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        let mut keys = self.lock();
        keys.forget(self.capacity);
        keys.until.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest 100 000 keys, each for an hour: some 20 MB with the ids that are made here.
impl Default for SeenInMemory {
    fn default() -> Self {
        Self::new(100_000, Duration::from_secs(60 * 60))
    }
}

#[async_trait]
impl Seen for SeenInMemory {
    async fn contains(&self, key: &str) -> Result<bool, BoxError> {
        let mut keys = self.lock();
        keys.forget(self.capacity);
        Ok(keys.until.contains_key(key))
    }

    async fn insert(&self, key: &str) -> Result<(), BoxError> {
        let mut keys = self.lock();
        let (key, until) = (Arc::<str>::from(key), Instant::now() + self.keep);
        keys.until.insert(Arc::clone(&key), until);
        keys.order.push_back((until, key));
        keys.forget(self.capacity);
        Ok(())
    }
}

impl Keys {
    fn forget(&mut self, capacity: usize) {
        let now = Instant::now();
        while let Some((until, _)) = self.order.front()
            && (*until <= now || self.order.len() > capacity)
        {
            let Some((until, key)) = self.order.pop_front() else { return };
            // One that was remembered anew stands further back once more.
            if self.until.get(&key) == Some(&until) {
                self.until.remove(&key);
            }
        }
    }
}

impl fmt::Debug for SeenInMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeenInMemory")
            .field("capacity", &self.capacity)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}
