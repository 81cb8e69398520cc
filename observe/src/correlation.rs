//! Which trace and which request the code that runs now works for.
//!
//! The server and the pub/sub router put it around every poll of a handler; log lines of that poll carry it. It
//! belongs to the thread for the length of a call, so it does not follow a task that a handler spawns: hand
//! [`current`] over and wrap the task's future in [`scope`].

use std::cell::RefCell;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use pin_project_lite::pin_project;

use crate::trace::TraceContext;

thread_local! {
    static CURRENT: RefCell<Correlation> = const { RefCell::new(Correlation { trace: None, request_id: None }) };
}

/// What log lines say about where they belong.
///
/// A clone allocates nothing, provided that the request id is a slice of a shared buffer or static (a `Bytes` made
/// from a `Vec` allocates once, at its first clone).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Correlation {
    /// The trace and the span that the work is done under.
    pub trace: Option<TraceContext>,
    /// The request's id, as it was received or made.
    pub request_id: Option<Bytes>,
}

pin_project! {
    /// A future whose every poll runs under its correlation. Made by [`scope`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scoped<F> {
        // An option only so that drop can end the future while its correlation is still in place.
        #[pin]
        future: Option<F>,
        correlation: Correlation,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _swapped = Swapped::new(this.correlation);
            this.future.set(None);
        }
    }
}

/// Runs `f` under `correlation`, and puts back what was there before, also when `f` panics.
pub fn with<T>(correlation: &Correlation, f: impl FnOnce() -> T) -> T {
    let mut correlation = correlation.clone();
    let _swapped = Swapped::new(&mut correlation);
    f()
}

/// [`with`] for a correlation that is nobody else's: it moves to the thread and back, which spares the reference counts
/// of a clone. While `f` runs, its place holds what was there before.
pub fn lend<T>(correlation: &mut Correlation, f: impl FnOnce() -> T) -> T {
    let _swapped = Swapped::new(correlation);
    f()
}

/// What the running code works for; empty outside of [`with`] and [`scope`].
pub fn current() -> Correlation {
    read(Correlation::clone).unwrap_or_default()
}

/// The trace of [`current`] alone.
pub fn trace() -> Option<TraceContext> {
    read(|current| current.trace).flatten()
}

/// Makes a future that does [`with`] around every poll of `future`, also around its drop if it is not finished.
pub fn scope<F: Future>(correlation: Correlation, future: F) -> Scoped<F> {
    Scoped { future: Some(future), correlation }
}

/// Shows the current correlation without cloning it; `None` while the thread is on its way out. `f` must not run
/// code of others.
pub(crate) fn read<T>(f: impl FnOnce(&Correlation) -> T) -> Option<T> {
    CURRENT.try_with(|current| current.try_borrow().ok().map(|current| f(&current))).ok().flatten()
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _swapped = Swapped::new(this.correlation);
        let future = this.future.as_pin_mut().expect("only drop takes the future away");
        future.poll(cx)
    }
}

/// Exchanges a correlation with the thread's, and exchanges them again when dropped. Moving instead of cloning
/// spares a poll the reference count.
struct Swapped<'a>(&'a mut Correlation);

impl<'a> Swapped<'a> {
    fn new(correlation: &'a mut Correlation) -> Self {
        swap(correlation);
        Self(correlation)
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        swap(self.0);
    }
}

fn swap(correlation: &mut Correlation) {
    let _ = CURRENT.try_with(|current| {
        if let Ok(mut current) = current.try_borrow_mut() {
            mem::swap(&mut *current, correlation);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::Waker;

    fn request(id: &'static str) -> Correlation {
        Correlation { trace: Some(TraceContext::new()), request_id: Some(Bytes::from_static(id.as_bytes())) }
    }

    #[test]
    fn the_inner_correlation_hides_the_outer_for_its_time() {
        let (outer, inner) = (request("outer"), request("inner"));
        with(&outer, || {
            assert_eq!(with(&inner, current), inner);
            assert_eq!(current(), outer);
            let mut lent = inner.clone();
            assert_eq!(lend(&mut lent, current), inner);
            assert_eq!((current(), lent), (outer.clone(), inner.clone()));
        });
        assert_eq!(current(), Correlation::default());
    }

    #[test]
    fn a_panic_puts_the_outer_correlation_back() {
        let outer = request("outer");
        with(&outer, || {
            let panicked = catch_unwind(|| with(&request("inner"), || std::panic::resume_unwind(Box::new(()))));
            assert!(panicked.is_err());
            assert_eq!(current(), outer);
            let mut future = Box::pin(scope(request("polled"), async { std::panic::resume_unwind(Box::new(())) }));
            let mut cx = Context::from_waker(Waker::noop());
            let polled: Result<Poll<()>, _> = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
            assert!(polled.is_err());
            assert_eq!(current(), outer);
        });
        assert_eq!(current(), Correlation::default());
    }

    #[test]
    fn a_scoped_future_sees_its_correlation_at_every_poll_and_leaves_none_between() {
        let mine = request("mine");
        let seen = RefCell::new(Vec::new());
        let mut future = Box::pin(scope(mine.clone(), async {
            seen.borrow_mut().push(current());
            let mut first = true;
            std::future::poll_fn(|_| if mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }).await;
            seen.borrow_mut().push(current());
        }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        assert_eq!(current(), Correlation::default());
        assert!(future.as_mut().poll(&mut cx).is_ready());
        assert_eq!(*seen.borrow(), [mine.clone(), mine]);
    }

    #[test]
    fn a_future_that_is_dropped_unfinished_is_dropped_under_its_correlation() {
        struct Witness<'a>(&'a RefCell<Correlation>);
        impl Drop for Witness<'_> {
            fn drop(&mut self) {
                *self.0.borrow_mut() = current();
            }
        }
        let (mine, seen) = (request("mine"), RefCell::default());
        let witness = Witness(&seen);
        drop(scope(mine.clone(), async move {
            let _witness = witness;
            std::future::pending::<()>().await;
        }));
        assert_eq!(*seen.borrow(), mine);
    }
}
