//! When to stop, and by when.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Tells a task that it should stop, and how long it may take. Cheap to clone.
///
/// A task sees two moments. At [`requested`](Self::requested) it takes on nothing new and finishes what it
/// has begun. At [`expired`](Self::expired) the time for finishing is over: the server drops the task soon
/// after, and whatever it still holds must be safe to drop.
#[derive(Clone, Debug)]
pub struct Shutdown {
    state: watch::Receiver<State>,
    /// Keeps the channel open for a `Shutdown` that nobody will ever trigger.
    _never: Option<Arc<watch::Sender<State>>>,
}

/// The other end of a [`Shutdown`]. Dropping it without a request requests an immediate stop, so that a task
/// never outlives its owner.
#[derive(Debug)]
pub struct Trigger(watch::Sender<State>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Requested { deadline: Instant, requests_finished: bool },
}

impl Shutdown {
    /// Makes a connected pair.
    pub fn channel() -> (Trigger, Self) {
        let (sender, state) = watch::channel(State::Running);
        (Trigger(sender), Self { state, _never: None })
    }

    /// A shutdown that never comes.
    pub fn never() -> Self {
        let (sender, state) = watch::channel(State::Running);
        Self { state, _never: Some(Arc::new(sender)) }
    }

    /// Waits until stopping is requested. Cancel-safe; resolves at once if it already was.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut state = self.state.clone();
        async move {
            // An error means that the trigger is gone, which is a request too.
            let _ = state.wait_for(|state| *state != State::Running).await;
        }
    }

    /// Waits until the time for finishing is over. Cancel-safe.
    pub fn expired(&self) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        async move {
            this.requested().await;
            if let Some(deadline) = this.deadline() {
                tokio::time::sleep_until(deadline).await;
            }
        }
    }

    /// Waits until, after a stop was requested, the last request to this process has been answered. From then on nobody
    /// but daemons makes new work, so a queue that lives in this process and is empty stays empty. Cancel-safe.
    pub fn requests_finished(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut state = self.state.clone();
        async move {
            // An error means that the trigger is gone: nothing will come any more.
            let _ = state.wait_for(|state| matches!(state, State::Requested { requests_finished: true, .. })).await;
        }
    }

    /// Whether stopping has been requested.
    pub fn is_requested(&self) -> bool {
        *self.state.borrow() != State::Running || self.state.has_changed().is_err()
    }

    /// When work must be finished; `None` before the request, and when the owner is gone.
    pub fn deadline(&self) -> Option<Instant> {
        match *self.state.borrow() {
            State::Running => None,
            State::Requested { deadline, .. } => Some(deadline),
        }
    }

    /// How much time is left for finishing; `None` before the request.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

impl Trigger {
    /// Requests a stop, with work to be finished by `deadline`. A later call can only move the deadline closer.
    pub fn request(&self, deadline: Instant) {
        self.0.send_if_modified(|state| match state {
            State::Requested { deadline: earlier, .. } => {
                let closer = deadline < *earlier;
                *earlier = deadline.min(*earlier);
                closer
            }
            State::Running => {
                *state = State::Requested { deadline, requests_finished: false };
                true
            }
        });
    }

    /// Says that the last request has been answered. Without effect before a stop was requested.
    pub fn requests_finished(&self) {
        self.0.send_if_modified(|state| match state {
            State::Requested { requests_finished, .. } => !std::mem::replace(requests_finished, true),
            State::Running => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_wakes_waiters_and_expires_at_its_deadline() {
        let (trigger, shutdown) = Shutdown::channel();
        assert!(!shutdown.is_requested());
        assert_eq!(shutdown.deadline(), None);
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn(shutdown.expired());
        let start = Instant::now();
        trigger.request(start + Duration::from_secs(5));
        shutdown.requested().await;
        assert!(shutdown.is_requested());
        waiting.join_next().await.unwrap().unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_request_can_only_shorten_the_deadline() {
        let (trigger, shutdown) = Shutdown::channel();
        let now = Instant::now();
        trigger.request(now + Duration::from_secs(5));
        trigger.request(now + Duration::from_secs(9));
        assert_eq!(shutdown.remaining(), Some(Duration::from_secs(5)));
        trigger.request(now + Duration::from_secs(1));
        assert_eq!(shutdown.remaining(), Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_is_told_apart_from_the_request_to_stop() {
        let (trigger, shutdown) = Shutdown::channel();
        trigger.requests_finished();
        trigger.request(Instant::now() + Duration::from_secs(5));
        let mut finished = Box::pin(shutdown.requests_finished());
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut finished).await.is_err());
        trigger.requests_finished();
        finished.await;
        assert_eq!(shutdown.remaining(), Some(Duration::from_secs(4)));
    }

    #[tokio::test]
    async fn a_dropped_trigger_stops_its_tasks() {
        let (trigger, shutdown) = Shutdown::channel();
        drop(trigger);
        shutdown.expired().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn never_stays_silent() {
        let shutdown = Shutdown::never();
        let waited = tokio::time::timeout(Duration::from_secs(3600), shutdown.clone().requested()).await;
        assert!(waited.is_err());
        assert!(!shutdown.is_requested());
    }
}
