//! Records in memory that is used again.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::record::Record;

/// A record that costs a request no allocation, and eight bytes wherever the request goes. Dropping it settles the
/// record, and keeps its memory for the thread's next request.
pub(super) struct Pooled(Option<Memory>);

/// There is a record in it exactly while a [`Pooled`] holds it.
type Memory = Box<Option<Record>>;

/// More lie idle after a burst only.
const KEPT: usize = 256;

thread_local! {
    static KEPT_MEMORY: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

impl Pooled {
    #[inline]
    pub(super) fn new(record: Record) -> Self {
        let mut memory = KEPT_MEMORY.with_borrow_mut(Vec::pop).unwrap_or_default();
        *memory = Some(record);
        Self(Some(memory))
    }
}

impl Deref for Pooled {
    type Target = Record;

    fn deref(&self) -> &Record {
        let record = self.0.as_ref().and_then(|memory| memory.as_ref().as_ref());
        record.expect("only drop takes the record away")
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Record {
        let record = self.0.as_mut().and_then(|memory| memory.as_mut().as_mut());
        record.expect("only drop takes the record away")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(mut memory) = self.0.take() else { return };
        // Settles it: logs, counts. Nothing of that happens while the memory of others is borrowed.
        *memory = None;
        // A thread that ends has no use for it.
        let _ = KEPT_MEMORY.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT {
                kept.push(memory);
            }
        });
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
