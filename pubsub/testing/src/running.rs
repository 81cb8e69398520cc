//! A router at work in a test.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use mainspring_daemon::{Chain, Context, Trigger};
use mainspring_pubsub::{Error, Router};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// A router at work. Dropping it aborts it, as a server does that is out of time.
#[derive(Debug)]
#[must_use = "a router that is dropped is aborted"]
pub struct Running {
    cx: Context,
    trigger: Trigger,
    task: JoinSet<Result<(), Error>>,
    /// The error or panic with which the router ended, until somebody has asked for it.
    failed: watch::Sender<Option<String>>,
}

impl Running {
    /// Starts a router on the current runtime.
    pub fn start(router: Router) -> Self {
        let (trigger, cx) = Context::test("router");
        let mut task = JoinSet::new();
        let (failed, run) = (watch::Sender::default(), router.run(cx.clone()));
        let note = failed.clone();
        task.spawn(async move {
            let ended = AssertUnwindSafe(run).catch_unwind().await;
            match &ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => drop(note.send_replace(Some(Chain(error).to_string()))),
                Err(_) => drop(note.send_replace(Some("it panicked, see above".into()))),
            }
            ended.unwrap_or_else(|panic| resume_unwind(panic))
        });
        Self { cx, trigger, task, failed }
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
        let ended = timeout(limit, self.task.join_next()).await.ok()??;
        self.failed.send_replace(None);
        match ended {
            Ok(result) => Some(result),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
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

    /// Tells of an error or a panic that ends the router, for as long as nobody has asked how it ended.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Drops the router's future, as a server does that is out of time, and waits until it is gone.
    pub async fn abort(mut self) {
        self.task.shutdown().await;
    }
}
