//! Functions that handle several messages at once.
//!
//! A batch handler is a service for single messages, like any other: each message has its own call, lane, lease, retries
//! and layers. The calls meet here, become a batch, and each takes its own outcome away.

mod gathering;
mod hold;
mod member;
mod state;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, Ready, ready};
use mainspring_daemon::{BoxError, BoxFuture};
use tower::Service;

use crate::extract::{FromMessage, State};
use crate::failure::{Failure, HandlerError};
use crate::request::Request;
use gathering::Gathering;
pub(crate) use hold::Hold;
use member::Member;

/// How many messages make a batch, and how long one waits for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batching {
    /// The most messages in a batch.
    pub max: usize,
    /// How long a batch that is not full waits, counted from its first message. Default 20 ms.
    pub linger: Duration,
}

/// A function that handles several messages at once:
/// `async fn(Vec<T>) -> Vec<Result<(), Failure>>`, or with the state first, `async fn(State<S>, Vec<T>) -> …`.
///
/// `T` is whatever a handler for single messages could take, a tuple for more than one part of each, as in
/// `Vec<(Key, Json<Order>)>`. The messages are in the order in which they came. The answer is one result for each, in the
/// same order; or `Result<(), Failure>`, which holds for all of them; or, for `?`, a `Result` of one result for each.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of batches",
    label = "not an `async fn(Vec<T>) -> Vec<Result<(), Failure>>` whose `T` comes from a message",
    note = "it takes `Vec<T>`, or `State<S>` and then `Vec<T>`, where `T` is `Json<U>`, `Bytes`, `Message`, … or a tuple of those",
    note = "it returns `Vec<Result<(), Failure>>`, `Result<(), Failure>` for all alike, or `Result<Vec<Result<(), Failure>>, Failure>`, and its future must be `Send`",
    note = "for state, `State<S>` and `Router::with_state` must agree on `S`"
)]
pub trait BatchHandler<Args, S>: Clone + Send + 'static {
    /// What the handler takes of each message.
    type Item: FromMessage<S> + Send + 'static;

    /// Calls the function.
    fn call(self, items: Vec<Self::Item>, state: S) -> BoxFuture<Answer>;
}

/// What becomes of the messages of a batch.
#[derive(Debug)]
pub struct Answer(Answers);

#[derive(Debug)]
enum Answers {
    All(Result<(), Failure>),
    Each(Vec<Result<(), Failure>>),
}

impl Batching {
    /// Batches of at most `max` messages.
    pub fn up_to(max: usize) -> Self {
        Self { max, linger: Duration::from_millis(20) }
    }

    /// Sets how long a batch that is not full waits, counted from its first message.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }
}

impl Answer {
    /// One result for each of `messages`.
    fn for_each(self, messages: usize) -> Vec<Result<(), Failure>> {
        let alike = |failure: Failure| {
            let failure = Arc::new(failure);
            (0..messages).map(|_| Err(Failure::shared(&failure))).collect()
        };
        match self.0 {
            Answers::All(Ok(())) => (0..messages).map(|_| Ok(())).collect(),
            Answers::All(Err(failure)) => alike(failure),
            Answers::Each(results) if results.len() == messages => results,
            Answers::Each(results) => {
                let answered = results.len();
                alike(Failure::retry(format!("the batch has {messages} messages and was answered for {answered}")))
            }
        }
    }
}

impl From<Result<(), Failure>> for Answer {
    fn from(all: Result<(), Failure>) -> Self {
        Self(Answers::All(all))
    }
}

impl From<Vec<Result<(), Failure>>> for Answer {
    fn from(each: Vec<Result<(), Failure>>) -> Self {
        Self(Answers::Each(each))
    }
}

impl From<Result<Vec<Result<(), Failure>>, Failure>> for Answer {
    fn from(answer: Result<Vec<Result<(), Failure>>, Failure>) -> Self {
        Self(answer.map_or_else(|failure| Answers::All(Err(failure)), Answers::Each))
    }
}

impl<F, Fut, T, S> BatchHandler<(Vec<T>,), S> for F
where
    F: FnOnce(Vec<T>) -> Fut + Clone + Send + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Into<Answer>,
    T: FromMessage<S> + Send + 'static,
{
    type Item = T;

    fn call(self, items: Vec<T>, _state: S) -> BoxFuture<Answer> {
        Box::pin(async move { self(items).await.into() })
    }
}

impl<F, Fut, T, S> BatchHandler<(State<S>, Vec<T>), S> for F
where
    F: FnOnce(State<S>, Vec<T>) -> Fut + Clone + Send + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Into<Answer>,
    T: FromMessage<S> + Send + 'static,
    S: Send + 'static,
{
    type Item = T;

    fn call(self, items: Vec<T>, state: S) -> BoxFuture<Answer> {
        Box::pin(async move { self(State(state), items).await.into() })
    }
}

/// A [`BatchHandler`] and its state as a service for single messages. Its clones fill the same batches.
pub(crate) struct BatchService<H: BatchHandler<Args, S>, Args, S> {
    handler: H,
    state: S,
    gathering: Gathering<H::Item>,
    // `fn`, so that the service is `Send` whatever the arguments are.
    args: PhantomData<fn(Args)>,
}

impl<H: BatchHandler<Args, S>, Args, S> BatchService<H, Args, S> {
    pub(crate) fn new(handler: H, state: S, batching: Batching) -> Self {
        Self { handler, state, gathering: Gathering::new(batching), args: PhantomData }
    }
}

impl<H, Args, S> Service<Request> for BatchService<H, Args, S>
where
    H: BatchHandler<Args, S>,
    S: Clone + Send + 'static,
    Args: 'static,
{
    type Response = ();
    type Error = BoxError;
    type Future = Either<Member<H::Item>, Ready<Result<(), BoxError>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let item = match H::Item::from_message(&request, &self.state) {
            Ok(item) => item,
            Err(failure) => return Either::Right(ready(Err(HandlerError::from(failure).into()))),
        };
        let (handler, state) = (self.handler.clone(), self.state.clone());
        Either::Left(self.gathering.join(item, request.hold(), Box::new(|items| handler.call(items, state))))
    }
}

impl<H: BatchHandler<Args, S>, Args, S: Clone> Clone for BatchService<H, Args, S> {
    fn clone(&self) -> Self {
        let (handler, state, gathering) = (self.handler.clone(), self.state.clone(), self.gathering.clone());
        Self { handler, state, gathering, args: PhantomData }
    }
}

impl<H: BatchHandler<Args, S>, Args, S> fmt::Debug for BatchService<H, Args, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<H>())
    }
}
