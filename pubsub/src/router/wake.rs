//! Which lanes of a worker want to be polled.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use futures_util::task::AtomicWaker;

/// The lanes of one worker that want to be polled, and the worker's own waker.
#[derive(Default)]
pub(super) struct WorkerWake {
    ready: Mutex<Vec<usize>>,
    pub(super) waker: AtomicWaker,
}

/// Wakes one lane: what its handler's future sees as the waker.
pub(super) struct LaneWake {
    /// The lane's place in its worker.
    place: usize,
    queued: AtomicBool,
    worker: Arc<WorkerWake>,
}

impl WorkerWake {
    /// Moves the places of the lanes that want to be polled into `ready`, which must be empty.
    pub(super) fn take(&self, ready: &mut Vec<usize>) {
        mem::swap(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner), ready);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl LaneWake {
    pub(super) fn new(place: usize, worker: Arc<WorkerWake>) -> Self {
        Self { place, queued: AtomicBool::new(false), worker }
    }

    /// To be called before the lane is polled: what wakes it from then on counts.
    pub(super) fn polling(&self) {
        self.queued.store(false, Ordering::SeqCst);
    }

    pub(super) fn wake_lane(&self) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.worker.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
            self.worker.waker.wake();
        }
    }
}

impl Wake for LaneWake {
    fn wake(self: Arc<Self>) {
        self.wake_lane();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_lane();
    }
}
