//! A message in a batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mainspring_daemon::{BoxError, BoxFuture};
use mainspring_observe::panics;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Answer;
use super::gathering::Gathering;
use super::state::Batch;
use crate::failure::{Failure, HandlerError, panic_text};

/// A message in a batch, and the future of its outcome.
///
/// Whoever finds the batch full, or its time over, begins it and drives it; the others wait. One that is dropped after
/// that cuts the whole batch off, since a handler cannot be stopped for one message alone.
pub(crate) struct Member<T> {
    gathering: Gathering<T>,
    batch: Arc<Batch<T>>,
    place: usize,
    begin: Option<Begin<T>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The handler at work, with the one that drives it.
    work: Option<Work>,
    done: bool,
}

/// Calls the handler of a batch.
pub(super) type Begin<T> = Box<dyn FnOnce(Vec<T>) -> BoxFuture<Answer> + Send>;

struct Work {
    handler: BoxFuture<Answer>,
    /// Whose results come, in order.
    places: Vec<usize>,
}

impl<T> Member<T> {
    pub(super) fn new(gathering: Gathering<T>, batch: Arc<Batch<T>>, place: usize, begin: Begin<T>) -> Self {
        Self { gathering, batch, place, begin: Some(begin), timer: None, work: None, done: false }
    }
}

impl<T: Send + 'static> Member<T> {
    /// Waits for the batch to be full or due, then begins it; ready when the outcome is known or the handler runs.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Failure>>> {
        loop {
            let batch = Arc::clone(&self.batch);
            let mut state = batch.lock();
            let place = &mut state.places[self.place];
            if let Some(outcome) = place.outcome.take() {
                return Poll::Ready(Some(outcome));
            }
            place.waker = Some(cx.waker().clone());
            if state.begun {
                return Poll::Pending;
            }
            if state.waiting < self.gathering.batching.max && Instant::now() < state.due {
                if *state.keeper.get_or_insert(self.place) != self.place {
                    return Poll::Pending;
                }
                let due = state.due;
                drop(state);
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
                std::task::ready!(timer.as_mut().poll(cx));
                continue;
            }
            let Some(begin) = self.begin.take() else { return Poll::Pending };
            let (items, places) = state.begin(self.place);
            // The others have begun, too: their time runs from now on.
            state.wake_all();
            drop(state);
            self.gathering.shut(&self.batch);
            let handler = Box::pin(async move { begin(items).await });
            self.work = Some(Work { handler, places });
            return Poll::Ready(None);
        }
    }

    /// Goes on with the handler; at its end, everybody knows their outcome.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        {
            let mut state = self.batch.lock();
            if state.cut {
                drop(state);
                self.cut_off();
                return Poll::Ready(());
            }
            state.places[self.place].waker = Some(cx.waker().clone());
        }
        let polled = catch_unwind(AssertUnwindSafe(|| work.handler.as_mut().poll(cx)));
        let outcomes = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(answer)) => answer.for_each(work.places.len()),
            Err(panic) => {
                panics::count("message");
                let text = panic_text(&*panic);
                work.places.iter().map(|_| Err(Failure::panicked(text.clone()))).collect()
            }
        };
        if let Some(work) = self.work.take() {
            self.batch.lock().finish(work.places.iter().copied().zip(outcomes));
            drop_quietly(work.handler);
        }
        Poll::Ready(())
    }
}

impl<T> Member<T> {
    /// Drops the handler: its messages fail together.
    fn cut_off(&mut self) {
        let Some(work) = self.work.take() else { return };
        drop_quietly(work.handler);
        let cut = |at| (at, Err(Failure::retry("the batch was cut off: it took too long, or a message of it did")));
        self.batch.lock().finish(work.places.into_iter().map(cut));
    }
}

impl<T: Send + 'static> Future for Member<T> {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            std::task::ready!(self.drive(cx));
            if let Some(outcome) = std::task::ready!(self.poll_waiting(cx)) {
                self.done = true;
                return Poll::Ready(outcome.map_err(|failure| HandlerError::from(failure).into()));
            }
        }
    }
}

impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.cut_off();
        let mut state = self.batch.lock();
        if state.begun {
            state.cut = true;
            let driver = state.driver;
            if let Some(waker) = driver.and_then(|driver| state.places[driver].waker.take()) {
                waker.wake();
            }
            return;
        }
        let item = state.places[self.place].item.take();
        state.places[self.place].waker = None;
        state.waiting -= 1;
        if state.keeper == Some(self.place) {
            // Somebody else has to look at the clock.
            state.keeper = None;
            state.wake_all();
        }
        drop(state);
        drop(item);
    }
}

// Nothing in it is pinned in place.
impl<T> Unpin for Member<T> {}

/// A panic of what a handler drops is counted, and changes nothing.
fn drop_quietly(handler: BoxFuture<Answer>) {
    if catch_unwind(AssertUnwindSafe(|| drop(handler))).is_err() {
        panics::count("message");
    }
}
