//! A router at work in a test.

use std::time::Duration;

use mainspring_daemon::{Context, Trigger};
use mainspring_pubsub::{Error, Router};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// A router at work. Dropping it aborts it, as a server does that is out of time.
#[derive(Debug)]
pub struct Running {
    cx: Context,
    trigger: Trigger,
    task: JoinSet<Result<(), Error>>,
}

impl Running {
    /// Starts a router on the current runtime.
    pub fn start(router: Router) -> Self {
        let (trigger, cx) = Context::test("router");
        let mut task = JoinSet::new();
        task.spawn(router.run(cx.clone()));
        Self { cx, trigger, task }
    }

    /// What the router was handed: readiness, checks and debug pages can be looked at here.
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// Asks it to stop, with this much time for finishing.
    pub fn request_stop(&self, budget: Duration) {
        self.trigger.request(Instant::now() + budget);
    }

    /// Waits until the router ends, for at most `limit`; `None` when it goes on. A panic of the router goes on here.
    pub async fn ended(&mut self, limit: Duration) -> Option<Result<(), Error>> {
        match timeout(limit, self.task.join_next()).await.ok()?? {
            Ok(result) => Some(result),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }

    /// Asks it to stop within 30 s, and waits for it.
    ///
    /// # Panics
    /// When it fails, or takes longer than it may.
    pub async fn stop(mut self) {
        let budget = Duration::from_secs(30);
        self.request_stop(budget);
        match self.ended(budget + Duration::from_secs(5)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => panic!("the router failed: {error:?}"),
            None => panic!("the router did not stop within {budget:?}"),
        }
    }

    /// Drops the router's future, as a server does that is out of time, and waits until it is gone.
    pub async fn abort(mut self) {
        self.task.shutdown().await;
    }
}
