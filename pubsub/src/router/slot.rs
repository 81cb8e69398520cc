//! The place in which a lane runs its handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mainspring_daemon::BoxError;
use mainspring_observe::panics;
use tower::Service;

use crate::failure::panic_text;
use crate::{Failure, Request};

/// Runs one call of a service at a time, and catches its panics.
pub(super) trait Slot: Send {
    /// Begins a call. The last one must be over.
    fn start(&mut self, request: Request);

    /// Goes on with the call, to its end if it can.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>>;

    /// Whether the service has let the call in: until then a layer holds it back.
    fn has_begun(&self) -> bool;

    /// Drops the call.
    fn clear(&mut self);
}

/// A slot for services of one type. Its future's memory is used again, so that a call costs no allocation.
pub(super) struct ServiceSlot<V: Service<Request>> {
    pristine: V,
    service: V,
    request: Option<Request>,
    future: Pin<Box<Option<V::Future>>>,
}

impl<V> ServiceSlot<V>
where
    V: Service<Request, Response = ()> + Clone,
    V::Error: Into<BoxError>,
{
    pub(super) fn new(service: V) -> Self {
        Self { pristine: service.clone(), service, request: None, future: Box::pin(None) }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.request.is_some() {
            if let Err(error) = ready!(self.service.poll_ready(cx)) {
                self.request = None;
                return Poll::Ready(Err(error.into()));
            }
            if let Some(request) = self.request.take() {
                self.future.set(Some(self.service.call(request)));
            }
        }
        match self.future.as_mut().as_pin_mut() {
            Some(future) => {
                let result = ready!(future.poll(cx));
                self.future.set(None);
                Poll::Ready(result.map_err(Into::into))
            }
            None => Poll::Ready(Err("the handler was not started".into())),
        }
    }
}

impl<V> Slot for ServiceSlot<V>
where
    V: Service<Request, Response = ()> + Clone + Send + 'static,
    V::Error: Into<BoxError>,
    V::Future: Send + 'static,
{
    fn start(&mut self, request: Request) {
        self.request = Some(request);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match catch_unwind(AssertUnwindSafe(|| self.go_on(cx))) {
            Ok(polled) => polled.map_err(Failure::from_service),
            Err(panic) => {
                panics::count("message");
                self.clear();
                // Whatever state the panic left behind goes with the service it happened in.
                self.service = self.pristine.clone();
                Poll::Ready(Err(Failure::panicked(panic_text(&*panic))))
            }
        }
    }

    fn has_begun(&self) -> bool {
        self.request.is_none()
    }

    fn clear(&mut self) {
        self.request = None;
        if catch_unwind(AssertUnwindSafe(|| self.future.set(None))).is_err() {
            // The future is gone all the same: `set` replaces it even when dropping the old one unwinds.
            panics::count("message");
        }
    }
}
