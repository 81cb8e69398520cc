//! What the messages of a batch share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

use super::Hold;
use crate::failure::Failure;

/// A batch, from its first message to its outcomes.
pub(super) struct Batch<T>(Mutex<State<T>>);

pub(super) struct State<T> {
    pub(super) places: Vec<Place<T>>,
    /// How many of the places have a message.
    pub(super) waiting: usize,
    /// When to begin, full or not.
    pub(super) due: Instant,
    pub(super) begun: bool,
    /// Who looks at the clock.
    pub(super) keeper: Option<usize>,
    /// Who drives the handler.
    pub(super) driver: Option<usize>,
    /// One of the messages was given up: the handler is to be dropped.
    pub(super) cut: bool,
}

/// A message in its batch.
pub(super) struct Place<T> {
    pub(super) item: Option<T>,
    hold: Option<Arc<Hold>>,
    pub(super) waker: Option<Waker>,
    pub(super) outcome: Option<Result<(), Failure>>,
}

impl<T> Batch<T> {
    /// A batch of one message so far.
    pub(super) fn new(first: Place<T>, due: Instant) -> Self {
        let places = vec![first];
        Self(Mutex::new(State { places, waiting: 1, due, begun: false, keeper: None, driver: None, cut: false }))
    }

    /// Adds a message, or gives it back when the batch takes no more.
    pub(super) fn add(&self, place: Place<T>, max: usize) -> Result<usize, Place<T>> {
        let mut state = self.lock();
        if state.begun || state.waiting >= max {
            return Err(place);
        }
        state.waiting += 1;
        state.places.push(place);
        Ok(state.places.len() - 1)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Of others, only wakers run under the lock, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Place<T> {
    pub(super) fn new(item: T, hold: Option<Arc<Hold>>) -> Self {
        Self { item: Some(item), hold, waker: None, outcome: None }
    }
}

impl<T> State<T> {
    /// Takes out the messages that are still to be handled, and where they stood.
    pub(super) fn begin(&mut self, driver: usize) -> (Vec<T>, Vec<usize>) {
        (self.begun, self.driver) = (true, Some(driver));
        let taken = self.places.iter_mut().enumerate().filter_map(|(at, place)| {
            let item = place.item.take()?;
            place.hold.as_ref().is_none_or(|hold| hold.begin()).then_some((item, at))
        });
        taken.unzip()
    }

    /// Notes outcomes, and wakes everybody.
    pub(super) fn finish(&mut self, outcomes: impl Iterator<Item = (usize, Result<(), Failure>)>) {
        self.driver = None;
        for (at, outcome) in outcomes {
            self.places[at].outcome = Some(outcome);
        }
        self.wake_all();
    }

    pub(super) fn wake_all(&mut self) {
        for waker in self.places.iter_mut().filter_map(|place| place.waker.take()) {
            waker.wake();
        }
    }
}
