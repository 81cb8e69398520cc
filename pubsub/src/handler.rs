//! Functions as message handlers.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mainspring_daemon::BoxError;
use pin_project_lite::pin_project;
use tower::Service;

use crate::Failure;
use crate::extract::FromMessage;
use crate::failure::HandlerError;
use crate::request::Request;

/// A function that handles messages: `async fn(A, …) -> Result<(), Failure>` with up to eight arguments, each of which
/// implements [`FromMessage`], or a closure of that shape.
///
/// Nobody needs to implement it: for anything that is no function, there are tower services and
/// [`Router::route_service`](crate::Router::route_service).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message handler",
    label = "not an `async fn(A, …) -> Result<(), Failure>` whose arguments come from a message",
    note = "a handler takes up to 8 arguments, each of `Json<T>`, `Proto<T>`, `CloudEvent<T>`, `Text`, `Bytes`, `Key`, `Attributes`, `Attempt`, `Message`, `Outbox`, `State<S>` or your own `FromMessage`",
    note = "it returns `Result<(), Failure>`, and its future must be `Send`; a closure must be `Clone + Send`",
    note = "for state, `State<S>` and `Router::with_state` must agree on `S`"
)]
pub trait Handler<Args, S>: Clone + Send + 'static {
    /// What the function answers, later.
    type Future: Future<Output = Result<(), Failure>> + Send + 'static;

    /// Whether an argument needs an [`Outbox`](crate::Outbox).
    const OUTBOX: bool = false;

    /// Extracts the arguments and calls the function.
    fn call(self, request: &Request, state: &S) -> Handling<Self::Future>;
}

pin_project! {
    /// The future of a [`Handler`]'s call.
    #[must_use = "futures do nothing unless polled"]
    pub struct Handling<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Called { #[pin] future: F },
        // An argument could not be made.
        Refused { failure: Option<Failure> },
    }
}

impl<F> Handling<F> {
    fn called(future: F) -> Self {
        Self { state: State::Called { future } }
    }

    fn refused(failure: Failure) -> Self {
        Self { state: State::Refused { failure: Some(failure) } }
    }
}

impl<F: Future<Output = Result<(), Failure>>> Future for Handling<F> {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match self.project().state.project() {
            StateProjection::Called { future } => ready!(future.poll(cx)),
            StateProjection::Refused { failure } => {
                Err(failure.take().expect("a future that is done is not polled again"))
            }
        };
        Poll::Ready(result.map_err(|failure| HandlerError::from(failure).into()))
    }
}

impl<F> fmt::Debug for Handling<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handling").finish_non_exhaustive()
    }
}

/// A [`Handler`] and its state as a `tower::Service`.
pub struct HandlerService<H, Args, S> {
    handler: H,
    state: S,
    // `fn`, so that the service is `Send` whatever the arguments are.
    args: PhantomData<fn(Args)>,
}

impl<H, Args, S> HandlerService<H, Args, S> {
    pub(crate) fn new(handler: H, state: S) -> Self {
        Self { handler, state, args: PhantomData }
    }
}

impl<H: Clone, Args, S: Clone> Clone for HandlerService<H, Args, S> {
    fn clone(&self) -> Self {
        Self::new(self.handler.clone(), self.state.clone())
    }
}

impl<H, Args, S> fmt::Debug for HandlerService<H, Args, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<H>())
    }
}

impl<H: Handler<Args, S>, Args, S> Service<Request> for HandlerService<H, Args, S> {
    type Response = ();
    type Error = BoxError;
    type Future = Handling<H::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.handler.clone().call(&request, &self.state)
    }
}

macro_rules! handlers {
    ($($arg:ident)*) => {
        impl<F, Fut, S, $($arg,)*> Handler<($($arg,)*), S> for F
        where
            F: FnOnce($($arg,)*) -> Fut + Clone + Send + 'static,
            Fut: Future<Output = Result<(), Failure>> + Send + 'static,
            $($arg: FromMessage<S>,)*
        {
            type Future = Fut;

            const OUTBOX: bool = false $(|| $arg::OUTBOX)*;

            #[allow(non_snake_case, unused_variables)]
            fn call(self, request: &Request, state: &S) -> Handling<Fut> {
                $(
                    let $arg = match $arg::from_message(request, state) {
                        Ok(argument) => argument,
                        Err(failure) => return Handling::refused(failure),
                    };
                )*
                Handling::called(self($($arg,)*))
            }
        }
    };
}

handlers!();
handlers!(A1);
handlers!(A1 A2);
handlers!(A1 A2 A3);
handlers!(A1 A2 A3 A4);
handlers!(A1 A2 A3 A4 A5);
handlers!(A1 A2 A3 A4 A5 A6);
handlers!(A1 A2 A3 A4 A5 A6 A7);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8);
