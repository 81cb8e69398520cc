//! Whether something that the process depends on is there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{BoxError, BoxFuture};

/// A named dependency check: how long it may take, and whether the process is unready without it.
#[derive(Clone)]
pub struct Check {
    name: Arc<str>,
    timeout: Duration,
    required: bool,
    pub(crate) probe: Arc<dyn Fn() -> BoxFuture<Result<(), BoxError>> + Send + Sync>,
}

impl Check {
    /// A check that may take one second and without which the process is not ready.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let probe = Arc::new(|| -> BoxFuture<Result<(), BoxError>> { Box::pin(async { Ok(()) }) });
        Self { name: name.into(), timeout: Duration::from_secs(1), required: true, probe }
    }

    /// Sets how long the check may take before it counts as failed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes a failure show up without making the process unready.
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// What the check is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process is unready while the check fails.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Runs the check, within its timeout.
    pub async fn run(&self) -> Result<(), BoxError> {
        match tokio::time::timeout(self.timeout, (self.probe)()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", self.timeout).into()),
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}
