//! Messages held back while handlers keep failing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mainspring_daemon::{BoxError, BoxFuture};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service};
use tracing::{info, warn};

use crate::failure::Verdict;
use crate::{HandlerError, Request};

/// A circuit breaker: after so many failures in a row, no message begins for a while; then one is tried, and if that
/// succeeds all go on.
///
/// For handlers that depend on something which may be down as a whole. Messages wait instead of failing, so an outage
/// uses up the attempts of those that found it, and of one for each pause, and of no others.
///
/// What counts as a failure is what would be tried again: an error, a panic, a timeout. A message that is rejected or
/// cannot be read says nothing about anybody else. Each route that the layer is put around has a breaker of its own.
#[derive(Clone, Debug)]
pub struct Breaker {
    failures: u32,
    pause: Duration,
}

/// What [`Breaker`] makes of a service.
pub struct BreakerService<V> {
    inner: V,
    circuit: Arc<Circuit>,
    /// The wait for being let in, and then the leave to call.
    waits: Option<BoxFuture<Leave>>,
    leave: Option<Leave>,
}

#[derive(Debug)]
struct Circuit {
    limits: Breaker,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// All may begin; so many have failed in a row.
    Closed(u32),
    /// None may begin until then.
    Open(Instant),
    /// One is being tried.
    Trial,
}

/// Leave for one call. Dropping it without an answer counts as a failure of a call that has begun.
struct Leave {
    circuit: Arc<Circuit>,
    trial: bool,
    begun: bool,
    answered: bool,
}

impl Breaker {
    /// Opens after this many failures in a row, for this long. Zero failures are taken for one.
    pub fn new(failures: u32, pause: Duration) -> Self {
        Self { failures: failures.max(1), pause }
    }
}

impl<V> Layer<V> for Breaker {
    type Service = BreakerService<V>;

    fn layer(&self, inner: V) -> Self::Service {
        let state = Mutex::new(State::Closed(0));
        let circuit = Circuit { limits: self.clone(), state, changed: Notify::new() };
        BreakerService { inner, circuit: Arc::new(circuit), waits: None, leave: None }
    }
}

impl<V> Service<Request> for BreakerService<V>
where
    V: Service<Request, Response = ()>,
    V::Error: Into<BoxError>,
    V::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // What is inside first: a trial should not be kept waiting by it.
        if let Err(error) = ready!(self.inner.poll_ready(cx)) {
            return Poll::Ready(Err(error.into()));
        }
        if self.leave.is_none() {
            let circuit = &self.circuit;
            let waits = self.waits.get_or_insert_with(|| Box::pin(Arc::clone(circuit).enter()));
            self.leave = Some(ready!(waits.as_mut().poll(cx)));
            self.waits = None;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut leave = self.leave.take().unwrap_or_else(|| Leave::new(&self.circuit, false));
        leave.begun = true;
        let future = self.inner.call(request);
        Box::pin(async move {
            let result = future.await.map_err(Into::into);
            leave.answer(result.as_ref().err().is_none_or(|error| !is_failure(error)));
            result
        })
    }
}

impl Circuit {
    /// Waits until a message may begin.
    async fn enter(self: Arc<Self>) -> Leave {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let until = {
                let mut state = self.lock();
                match *state {
                    State::Closed(_) => return Leave::new(&self, false),
                    State::Open(until) if until <= Instant::now() => {
                        *state = State::Trial;
                        return Leave::new(&self, true);
                    }
                    State::Open(until) => Some(until),
                    State::Trial => None,
                }
            };
            match until {
                Some(until) => tokio::select! {
                    () = sleep_until(until) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    fn succeeded(&self, trial: bool) {
        let mut state = self.lock();
        match *state {
            State::Closed(_) => *state = State::Closed(0),
            // What began before the trial says nothing about now.
            State::Trial if trial => *state = State::Closed(0),
            State::Open(_) | State::Trial => return,
        }
        drop(state);
        if trial {
            info!("the trial succeeded: messages go on");
            self.changed.notify_waiters();
        }
    }

    fn failed(&self, trial: bool) {
        let mut state = self.lock();
        let failures = match *state {
            State::Closed(before) => before + 1,
            State::Trial if trial => self.limits.failures,
            State::Open(_) | State::Trial => return,
        };
        if failures < self.limits.failures {
            *state = State::Closed(failures);
            return;
        }
        *state = State::Open(Instant::now() + self.limits.pause);
        drop(state);
        warn!(failures, trial, pause = ?self.limits.pause, "handlers keep failing: messages are held back");
        self.changed.notify_waiters();
    }

    /// A trial that never began: another may.
    fn abandoned(&self) {
        *self.lock() = State::Open(Instant::now());
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave {
    fn new(circuit: &Arc<Circuit>, trial: bool) -> Self {
        Self { circuit: Arc::clone(circuit), trial, begun: false, answered: false }
    }

    fn answer(&mut self, success: bool) {
        self.answered = true;
        if success { self.circuit.succeeded(self.trial) } else { self.circuit.failed(self.trial) }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        match (self.answered, self.begun) {
            (true, _) => {}
            // A panic, a timeout, or the end of the process.
            (false, true) => self.circuit.failed(self.trial),
            (false, false) if self.trial => self.circuit.abandoned(),
            (false, false) => {}
        }
    }
}

/// A clone asks for itself.
impl<V: Clone> Clone for BreakerService<V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), circuit: Arc::clone(&self.circuit), waits: None, leave: None }
    }
}

impl<V: std::fmt::Debug> std::fmt::Debug for BreakerService<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BreakerService").field("inner", &self.inner).field("circuit", &self.circuit).finish()
    }
}

fn is_failure(error: &BoxError) -> bool {
    match error.downcast_ref::<HandlerError>() {
        Some(error) => matches!(error.failure().verdict, Verdict::Retry { .. }),
        None => true,
    }
}
