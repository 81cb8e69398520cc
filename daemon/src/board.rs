//! What a process shows of its tasks: who is not ready yet, what can be checked, looked at, counted, flushed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{BoxError, BoxFuture, Check, Page, PageRequest, PageResponse};

/// The notice board between tasks, which write on it, and the admin listener, which reads it.
///
/// Entries live as long as the board; only latches come and go.
#[derive(Default)]
pub struct Board {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    latches: BTreeMap<u64, (Arc<str>, Option<String>)>,
    next_latch: u64,
    checks: Vec<Check>,
    pages: Vec<Page>,
    flushes: Vec<Flush>,
    tallies: BTreeMap<&'static str, Tally>,
    held: Vec<(&'static str, Held)>,
}

/// How much a task holds.
type Held = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Holds the process back from being ready. Dropping it takes the hold away.
#[must_use = "a latch that is dropped no longer holds readiness back"]
pub struct Latch {
    board: Arc<Board>,
    id: u64,
}

/// Work to do once, after all requests and daemons have finished.
pub struct Flush {
    /// Who asked for it.
    pub name: Arc<str>,
    run: Box<dyn FnOnce() -> BoxFuture<Result<(), BoxError>> + Send>,
}

/// A count for the stop report.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<AtomicU64>);

impl Board {
    /// Holds the process back from being ready, on behalf of `name`.
    pub fn hold_ready(self: &Arc<Self>, name: &str, reason: impl Into<String>) -> Latch {
        let mut entries = self.lock();
        let id = entries.next_latch;
        entries.next_latch += 1;
        entries.latches.insert(id, (name.into(), Some(reason.into())));
        Latch { board: Arc::clone(self), id }
    }

    /// Who holds readiness back, and why.
    pub fn unready(&self) -> Vec<(Arc<str>, String)> {
        let entries = self.lock();
        let held = entries.latches.values();
        held.filter_map(|(name, reason)| Some((Arc::clone(name), reason.clone()?))).collect()
    }

    /// Adds a check; see [`Check::new`] for its settings.
    pub fn add_check<F, Fut>(&self, mut check: Check, probe: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        check.probe = Arc::new(move || Box::pin(probe()));
        self.lock().checks.push(check);
    }

    /// All checks, in the order in which they were added.
    pub fn checks(&self) -> Vec<Check> {
        self.lock().checks.clone()
    }

    /// Adds a page. A page that was added before under the same path is replaced.
    pub fn add_page<F, Fut>(&self, path: &str, title: &str, render: F)
    where
        F: Fn(PageRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = PageResponse> + Send + 'static,
    {
        let render = Arc::new(move |request| -> BoxFuture<PageResponse> { Box::pin(render(request)) });
        let page = Page { path: path.to_owned(), title: title.to_owned(), render };
        let mut entries = self.lock();
        entries.pages.retain(|known| known.path != page.path);
        entries.pages.push(page);
    }

    /// All pages, in the order in which they were added.
    pub fn pages(&self) -> Vec<Page> {
        self.lock().pages.clone()
    }

    /// Adds work to do after everything has drained.
    pub fn add_flush<F, Fut>(&self, name: &str, flush: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.lock().flushes.push(Flush { name: name.into(), run: Box::new(move || Box::pin(flush())) });
    }

    /// Takes all flushes, so that each runs once.
    pub fn take_flushes(&self) -> Vec<Flush> {
        std::mem::take(&mut self.lock().flushes)
    }

    /// The count called `key`, made on first use.
    pub fn tally(&self, key: &'static str) -> Tally {
        self.lock().tallies.entry(key).or_default().clone()
    }

    /// All counts, by name.
    pub fn tallies(&self) -> Vec<(&'static str, u64)> {
        self.lock().tallies.iter().map(|(key, tally)| (*key, tally.get())).collect()
    }

    /// Has `held` asked when the process ends without its tasks, at a second signal: what they still hold by then is
    /// added to the count called `key`.
    pub fn add_held(&self, key: &'static str, held: impl Fn() -> u64 + Send + Sync + 'static) {
        self.lock().held.push((key, Arc::new(held)));
    }

    /// All counts, by name, with what is still held.
    pub fn tallies_with_held(&self) -> Vec<(&'static str, u64)> {
        // The tasks are asked outside of the lock, because what they run may want it too.
        let held = self.lock().held.clone();
        let mut tallies: BTreeMap<_, _> = self.tallies().into_iter().collect();
        for (key, held) in held {
            *tallies.entry(key).or_default() += held();
        }
        tallies.into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // No user code runs under the lock, so a poisoned one still holds whole entries.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latch {
    /// Stops holding readiness back, until [`not_ready`](Self::not_ready).
    pub fn ready(&self) {
        self.set(None);
    }

    /// Holds readiness back again, for example while a broker cannot be reached.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        if let Some(entry) = self.board.lock().latches.get_mut(&self.id) {
            entry.1 = reason;
        }
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.board.lock().latches.remove(&self.id);
    }
}

impl Flush {
    /// Does the work.
    pub fn run(self) -> impl Future<Output = Result<(), BoxError>> + Send + 'static {
        (self.run)()
    }
}

impl Tally {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("unready", &self.unready())
            .field("tallies", &self.tallies())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Latch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latch").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flush").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Context;

    #[test]
    fn readiness_is_held_until_the_latch_is_released_or_dropped() {
        let (_trigger, cx) = Context::test("ship");
        let first = cx.hold_ready("subscribing");
        let second = cx.hold_ready("warming");
        first.ready();
        assert_eq!(cx.board().unready(), [("ship".into(), "warming".to_owned())]);
        drop(second);
        assert!(cx.board().unready().is_empty());
        first.not_ready("broker gone");
        assert_eq!(cx.board().unready().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_fails_at_its_timeout() {
        let (_trigger, cx) = Context::test("ship");
        cx.check(Check::new("db").timeout(Duration::from_secs(2)), std::future::pending);
        let start = tokio::time::Instant::now();
        let error = cx.board().checks()[0].run().await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        assert_eq!(error.to_string(), "no answer within 2s");
    }

    #[tokio::test]
    async fn flushes_run_once_and_tallies_add_up() {
        let (_trigger, cx) = Context::test("ship");
        let flushed = cx.tally("flushed");
        cx.on_flush({
            let flushed = flushed.clone();
            move || async move {
                flushed.add(1);
                Ok(())
            }
        });
        for flush in cx.board().take_flushes() {
            flush.run().await.unwrap();
        }
        assert!(cx.board().take_flushes().is_empty());
        assert_eq!(cx.board().tallies(), [("flushed", 1)]);
    }

    #[tokio::test]
    async fn what_is_held_counts_only_at_a_sudden_end() {
        let (_trigger, cx) = Context::test("ship");
        cx.tally("returned").add(2);
        cx.held("returned", || 3);
        cx.held("unsent", || 1);
        assert_eq!(cx.board().tallies(), [("returned", 2)]);
        assert_eq!(cx.board().tallies_with_held(), [("returned", 5), ("unsent", 1)]);
    }
}
