//! Where the calls for single messages become batches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use mainspring_daemon::{BoxError, BoxFuture};
use mainspring_observe::panics;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Answer, Batching, Hold};
use crate::failure::{Failure, HandlerError, panic_text};

/// The batch that is being filled.
pub(super) struct Gathering<T> {
    batching: Batching,
    open: Arc<Mutex<Option<Arc<Batch<T>>>>>,
}

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

type Begin<T> = Box<dyn FnOnce(Vec<T>) -> BoxFuture<Answer> + Send>;

struct Work {
    handler: BoxFuture<Answer>,
    /// Whose results come, in order.
    places: Vec<usize>,
}

struct Batch<T>(Mutex<State<T>>);

struct State<T> {
    places: Vec<Place<T>>,
    /// How many of the places have a message.
    waiting: usize,
    /// When to begin, full or not.
    due: Instant,
    begun: bool,
    /// Who looks at the clock.
    keeper: Option<usize>,
    /// Who drives the handler.
    driver: Option<usize>,
    /// One of the messages was given up: the handler is to be dropped.
    cut: bool,
}

struct Place<T> {
    item: Option<T>,
    hold: Option<Arc<Hold>>,
    waker: Option<Waker>,
    outcome: Option<Result<(), Failure>>,
}

impl<T> Gathering<T> {
    pub(super) fn new(batching: Batching) -> Self {
        Self { batching, open: Arc::default() }
    }

    /// Puts a message into the batch that is being filled, or into a new one.
    pub(super) fn join(&self, item: T, hold: Option<Arc<Hold>>, begin: Begin<T>) -> Member<T> {
        let mut place = Place { item: Some(item), hold, waker: None, outcome: None };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batch) = &*open {
            match batch.add(place, self.batching.max) {
                Ok(at) => return self.member(Arc::clone(batch), at, begin),
                Err(back) => place = back,
            }
        }
        let due = Instant::now() + self.batching.linger;
        let batch = Arc::new(Batch(Mutex::new(State {
            places: vec![place],
            waiting: 1,
            due,
            begun: false,
            keeper: None,
            driver: None,
            cut: false,
        })));
        *open = Some(Arc::clone(&batch));
        self.member(batch, 0, begin)
    }

    fn member(&self, batch: Arc<Batch<T>>, place: usize, begin: Begin<T>) -> Member<T> {
        let gathering = self.clone();
        Member { gathering, batch, place, begin: Some(begin), timer: None, work: None, done: false }
    }

    /// Nothing more is put into `batch`.
    fn shut(&self, batch: &Arc<Batch<T>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.take_if(|open| Arc::ptr_eq(open, batch));
    }
}

impl<T> Batch<T> {
    /// Adds a message, or gives it back when the batch takes no more.
    fn add(&self, place: Place<T>, max: usize) -> Result<usize, Place<T>> {
        let mut state = self.lock();
        if state.begun || state.waiting >= max {
            return Err(place);
        }
        state.waiting += 1;
        state.places.push(place);
        Ok(state.places.len() - 1)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Of others, only wakers run under the lock, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Takes out the messages that are still to be handled, and where they stood.
    fn begin(&mut self, driver: usize) -> (Vec<T>, Vec<usize>) {
        (self.begun, self.driver) = (true, Some(driver));
        let taken = self.places.iter_mut().enumerate().filter_map(|(at, place)| {
            let item = place.item.take()?;
            place.hold.as_ref().is_none_or(|hold| hold.begin()).then_some((item, at))
        });
        taken.unzip()
    }

    /// Notes outcomes, and wakes everybody.
    fn finish(&mut self, outcomes: impl Iterator<Item = (usize, Result<(), Failure>)>) {
        self.driver = None;
        for (at, outcome) in outcomes {
            self.places[at].outcome = Some(outcome);
        }
        self.wake_all();
    }

    fn wake_all(&mut self) {
        for waker in self.places.iter_mut().filter_map(|place| place.waker.take()) {
            waker.wake();
        }
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

impl<T> Clone for Gathering<T> {
    fn clone(&self) -> Self {
        Self { batching: self.batching.clone(), open: Arc::clone(&self.open) }
    }
}

/// A panic of what a handler drops is counted, and changes nothing.
fn drop_quietly(handler: BoxFuture<Answer>) {
    if catch_unwind(AssertUnwindSafe(|| drop(handler))).is_err() {
        panics::count("message");
    }
}
