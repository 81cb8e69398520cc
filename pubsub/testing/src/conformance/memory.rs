//! The memory broker as a backend.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mainspring_pubsub::{Brokers, BrokersConfig, Error};
use tokio::process::Command;
use tokio::runtime::Runtime;

use super::backend::Backend;

const ONE_PROCESS: &str = "lives in one process";

/// The broker inside the process.
#[derive(Debug)]
pub struct MemoryBackend {
    brokers: Brokers,
    lease: Option<Duration>,
    topics: AtomicUsize,
    paused: Option<fn() -> io::Result<Runtime>>,
}

impl MemoryBackend {
    /// A broker with the default configuration, but one: a stopping router leaves the queue to the next, as with a
    /// broker that outlives the process.
    pub fn new() -> Self {
        Self::with_lease(None)
    }

    fn with_lease(lease: Option<Duration>) -> Self {
        let mut config = BrokersConfig::default();
        config.memory.volatile = false;
        config.memory.visibility_timeout = lease.unwrap_or_default().into();
        let brokers = Brokers::new(&config).unwrap_or_else(|error| panic!("the configuration is sound: {error:?}"));
        Self { brokers, lease, topics: AtomicUsize::new(0), paused: None }
    }

    /// Offers runtimes whose clock is paused: see [`Backend::paused_runtime`].
    pub fn with_paused_runtime(mut self, make: fn() -> io::Result<Runtime>) -> Self {
        self.paused = Some(make);
        self
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn connect(&self) -> Result<Brokers, Error> {
        Ok(self.brokers.clone())
    }

    async fn topic(&self, case: &str) -> Result<String, Error> {
        Ok(format!("memory://{case}-{}", self.topics.fetch_add(1, Ordering::Relaxed)))
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn leased(&self) -> Result<(Arc<dyn Backend>, Duration), String> {
        let lease = Duration::from_millis(500);
        Ok((Arc::new(Self::with_lease(Some(self.lease.unwrap_or(lease)))), lease))
    }

    fn paused_runtime(&self) -> Result<fn() -> io::Result<Runtime>, String> {
        self.paused.ok_or_else(|| "no runtime with a paused clock is offered".to_owned())
    }

    fn can_restart(&self) -> Result<(), String> {
        Err(ONE_PROCESS.to_owned())
    }

    fn child(&self) -> Result<Command, String> {
        Err(ONE_PROCESS.to_owned())
    }
}
