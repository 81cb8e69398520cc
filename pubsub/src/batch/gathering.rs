//! Where the calls for single messages become batches.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::member::{Begin, Member};
use super::state::{Batch, Place};
use super::{Batching, Hold};

/// The batch that is being filled.
pub(super) struct Gathering<T> {
    pub(super) batching: Batching,
    open: Arc<Mutex<Option<Arc<Batch<T>>>>>,
}

impl<T> Gathering<T> {
    pub(super) fn new(batching: Batching) -> Self {
        Self { batching, open: Arc::default() }
    }

    /// Puts a message into the batch that is being filled, or into a new one.
    pub(super) fn join(&self, item: T, hold: Option<Arc<Hold>>, begin: Begin<T>) -> Member<T> {
        let mut place = Place::new(item, hold);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batch) = &*open {
            match batch.add(place, self.batching.max) {
                Ok(at) => return self.member(Arc::clone(batch), at, begin),
                Err(back) => place = back,
            }
        }
        let due = Instant::now() + self.batching.linger;
        let batch = Arc::new(Batch::new(place, due));
        *open = Some(Arc::clone(&batch));
        self.member(batch, 0, begin)
    }

    fn member(&self, batch: Arc<Batch<T>>, place: usize, begin: Begin<T>) -> Member<T> {
        Member::new(self.clone(), batch, place, begin)
    }

    /// Nothing more is put into `batch`.
    pub(super) fn shut(&self, batch: &Arc<Batch<T>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.take_if(|open| Arc::ptr_eq(open, batch));
    }
}

impl<T> Clone for Gathering<T> {
    fn clone(&self) -> Self {
        Self { batching: self.batching.clone(), open: Arc::clone(&self.open) }
    }
}
