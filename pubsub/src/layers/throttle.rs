//! No more than so many messages in a time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use crate::Request;

/// Begins messages at an even pace: for APIs that allow so many calls in a time.
///
/// Each route that the layer is put around has a pace of its own, shared by all its lanes. Messages beyond it are held
/// back and begin in the order in which their lanes asked. Retries count like any other message. Time in which nothing
/// came is not saved up, so that no burst follows a quiet hour.
#[derive(Clone, Debug)]
pub struct Throttle {
    pause: Duration,
}

/// What [`Throttle`] makes of a service.
#[derive(Debug)]
pub struct ThrottleService<V> {
    inner: V,
    pause: Duration,
    /// When the next message may begin; one for all clones.
    next: Arc<Mutex<Option<Instant>>>,
    turn: Turn,
}

/// A place in the pace, which the next call uses up.
#[derive(Debug)]
enum Turn {
    None,
    Waits(Pin<Box<Sleep>>),
    Come,
}

impl Throttle {
    /// At most `messages` in each `per`, evenly spread: `new(10, 1 s)` begins one every 100 ms. Zero messages are taken
    /// for one.
    pub fn new(messages: u32, per: Duration) -> Self {
        Self { pause: per / messages.max(1) }
    }
}

impl<V> Layer<V> for Throttle {
    type Service = ThrottleService<V>;

    fn layer(&self, inner: V) -> Self::Service {
        ThrottleService { inner, pause: self.pause, next: Arc::default(), turn: Turn::None }
    }
}

impl<V> ThrottleService<V> {
    /// Takes the next free place in the pace.
    fn take_turn(&self) -> Turn {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let at = next.map_or(now, |next| next.max(now));
        *next = Some(at + self.pause);
        if at <= now { Turn::Come } else { Turn::Waits(Box::pin(sleep_until(at))) }
    }
}

impl<V: Service<Request>> Service<Request> for ThrottleService<V> {
    type Response = V::Response;
    type Error = V::Error;
    type Future = V::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), V::Error>> {
        loop {
            match &mut self.turn {
                Turn::None => self.turn = self.take_turn(),
                Turn::Waits(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.turn = Turn::Come;
                }
                // The turn is kept until the call, however long what is inside makes it wait.
                Turn::Come => return self.inner.poll_ready(cx),
            }
        }
    }

    fn call(&mut self, request: Request) -> V::Future {
        self.turn = Turn::None;
        self.inner.call(request)
    }
}

/// A clone waits for a turn of its own.
impl<V: Clone> Clone for ThrottleService<V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), pause: self.pause, next: Arc::clone(&self.next), turn: Turn::None }
    }
}
