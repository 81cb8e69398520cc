//! Where the process stands between its start and its end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A phase of the process' life. They follow one another in this order, and none comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listeners are bound, daemons are starting.
    Starting,
    /// In service.
    Ready,
    /// A stop was requested: health says so, everything is still served.
    LameDuck,
    /// Nothing new is accepted or pulled; what was begun is finished.
    Draining,
    /// Publishers and other buffers are flushed.
    Flushing,
    /// Over.
    Stopped,
}

/// The current phase, and how long each one took.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    phase: Phase,
    since: Instant,
    past: Vec<(Phase, Duration)>,
    ready_once: bool,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        let inner = Inner { phase: Phase::Starting, since: Instant::now(), past: Vec::new(), ready_once: false };
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Whether a stop has been requested.
    pub(crate) fn is_stopping(&self) -> bool {
        self.phase() > Phase::Ready
    }

    /// Whether the process has been ready at any time.
    pub(crate) fn was_ready(&self) -> bool {
        self.lock().ready_once
    }

    /// Moves on to `phase`, and logs how long the one before took. Phases that lie behind are ignored.
    pub(crate) fn enter(&self, phase: Phase) {
        let mut inner = self.lock();
        if phase <= inner.phase {
            return;
        }
        let (last, took) = (inner.phase, inner.since.elapsed());
        inner.past.push((last, took));
        inner.phase = phase;
        inner.since = Instant::now();
        inner.ready_once |= phase == Phase::Ready;
        drop(inner);
        tracing::info!(phase = %phase, after = %last, took_ms = millis(took), "phase");
    }

    /// How long each phase took, and the current one so far. The end takes no time.
    pub(crate) fn durations(&self) -> Vec<(Phase, Duration)> {
        let inner = self.lock();
        let current = (inner.phase != Phase::Stopped).then(|| (inner.phase, inner.since.elapsed()));
        inner.past.iter().copied().chain(current).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::LameDuck => "lame_duck",
            Self::Draining => "draining",
            Self::Flushing => "flushing",
            Self::Stopped => "stopped",
        })
    }
}

/// Milliseconds with three decimals, as logs show durations.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn phases_are_timed_and_never_go_back() {
        let lifecycle = Lifecycle::new();
        tokio::time::advance(Duration::from_secs(2)).await;
        lifecycle.enter(Phase::Ready);
        lifecycle.enter(Phase::Draining);
        lifecycle.enter(Phase::LameDuck);
        assert_eq!(lifecycle.phase(), Phase::Draining);
        assert!(lifecycle.is_stopping() && lifecycle.was_ready());
        tokio::time::advance(Duration::from_secs(1)).await;
        let [starting, ready] = [(Phase::Starting, Duration::from_secs(2)), (Phase::Ready, Duration::ZERO)];
        let draining = (Phase::Draining, Duration::from_secs(1));
        assert_eq!(lifecycle.durations(), [starting, ready, draining]);
        lifecycle.enter(Phase::Stopped);
        assert_eq!(lifecycle.durations(), [starting, ready, draining]);
    }
}
