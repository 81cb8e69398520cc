//! The handle that a daemon's function receives.

use std::sync::Arc;

use crate::{Board, BoxError, Check, Latch, PageRequest, PageResponse, Shutdown, Tally, Trigger};

/// Everything a supervised task needs from the process around it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    name: Arc<str>,
    shutdown: Shutdown,
    board: Arc<Board>,
}

impl Context {
    /// Makes a context for a task called `name`.
    pub fn new(name: impl Into<Arc<str>>, shutdown: Shutdown, board: Arc<Board>) -> Self {
        Self { name: name.into(), shutdown, board }
    }

    /// A context for tests: the trigger stops the task, the board shows what it put up.
    pub fn test(name: &str) -> (Trigger, Self) {
        let (trigger, shutdown) = Shutdown::channel();
        (trigger, Self::new(name, shutdown, Arc::default()))
    }

    /// The name the daemon was registered under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When to stop.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// What this process shows of its tasks.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Holds the process back from being ready until the latch is released.
    ///
    /// Call it before the first `await` of the daemon, that is, in the function that makes its future: the
    /// server looks for latches as soon as every daemon has been started.
    pub fn hold_ready(&self, reason: impl Into<String>) -> Latch {
        self.board.hold_ready(&self.name, reason)
    }

    /// Adds a named dependency check to `/readyz`.
    pub fn check<F, Fut>(&self, check: Check, probe: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.board.add_check(check, probe);
    }

    /// Serves a page at `path` of the admin listener, for example `/debug/pubsub`.
    pub fn page<F, Fut>(&self, path: &str, title: &str, render: F)
    where
        F: Fn(PageRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = PageResponse> + Send + 'static,
    {
        self.board.add_page(path, title, render);
    }

    /// Has `flush` run once, after all requests and daemons have finished.
    pub fn on_flush<F, Fut>(&self, flush: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.board.add_flush(&self.name, flush);
    }

    /// A count that appears in the stop report under `key`. Counts with the same key add up.
    pub fn tally(&self, key: &'static str) -> Tally {
        self.board.tally(key)
    }

    /// Has `held` asked, for the count called `key`, what is still held when the process ends without its tasks, at a
    /// second signal. It is called from another thread and must not block.
    pub fn held(&self, key: &'static str, held: impl Fn() -> u64 + Send + Sync + 'static) {
        self.board.add_held(key, held);
    }
}
