//! What a handler publishes in one step with its message's ack.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::driver::{Endpoint, Outgoing};
use crate::extract::FromMessage;
use crate::request::Request;
use crate::{Error, ErrorKind, Failure, Message, Publisher};

/// Messages that one call of a handler may leave.
const MAX_MESSAGES: usize = 1000;
/// Bytes that one call of a handler may leave; one message may go over.
const MAX_BYTES: usize = 16 << 20;

/// Collects what a handler wants published exactly once: a handler of a [`Router`](crate::Router) that is
/// [`exactly_once`](crate::Router::exactly_once) takes it as an argument.
///
/// Nothing is published while the handler runs. When it returns `Ok`, its messages are published and the one that it
/// handled is acked in one transaction: both happen, or neither does. When it fails, panics, is aborted or loses its
/// message to another instance, what it left here is forgotten; the next attempt begins with an empty outbox. Clones are
/// the same outbox.
///
/// ```
/// # use mainspring_pubsub::{Failure, Message, Outbox, Publisher, State, Text};
/// async fn shout(Text(text): Text, State(loud): State<Publisher>, outbox: Outbox) -> Result<(), Failure> {
///     outbox.publish(&loud, Message::new(text.to_uppercase()))?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

struct Shared {
    source: Arc<Endpoint>,
    /// `None` once the call of the handler is over.
    left: Mutex<Option<Left>>,
}

#[derive(Default)]
struct Left {
    messages: Vec<Outgoing>,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn new(source: Arc<Endpoint>) -> Self {
        Self(Arc::new(Shared { source, left: Mutex::new(Some(Left::default())) }))
    }

    /// Leaves a message to be published by `to`, after those left before it.
    ///
    /// A message over a limit of the broker is refused at once. So is one for another broker than the one that the
    /// handled message came from ([`ErrorKind::Unsupported`]), as no transaction spans two; one beyond 1000 messages or
    /// 16 MiB ([`ErrorKind::TooLarge`]); and one that comes after the handler has returned ([`ErrorKind::Closed`]).
    pub fn publish(&self, to: &Publisher, mut message: Message) -> Result<(), Error> {
        let destination = to.endpoint();
        fits(&self.0.source, &destination)?;
        to.prepare(&mut message)?;
        let failed = |kind, what: String| Err(Error::new(kind, "outbox", what));
        let mut left = self.lock();
        let Some(left) = left.as_mut() else {
            let what = "the handler has returned; what is published with its message has to be left before";
            return failed(ErrorKind::Closed, what.to_owned());
        };
        if left.messages.len() >= MAX_MESSAGES || left.bytes >= MAX_BYTES {
            let what = format!(
                "{} messages of {} bytes are in the outbox, the limits are {MAX_MESSAGES} and {MAX_BYTES}",
                left.messages.len(),
                left.bytes
            );
            return failed(ErrorKind::TooLarge, what);
        }
        left.bytes += message.size();
        left.messages.push(Outgoing::new(destination, message));
        Ok(())
    }

    /// How many messages were left so far.
    pub fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |left| left.messages.len())
    }

    /// Whether nothing was left so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out what was left; nothing more may be left afterwards.
    pub(crate) fn close(&self) -> Vec<Outgoing> {
        self.lock().take().map(|left| left.messages).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Left>> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> FromMessage<S> for Outbox {
    const OUTBOX: bool = true;

    fn from_message(request: &Request, _state: &S) -> Result<Self, Failure> {
        let missing = || Failure::retry("there is no outbox: the router is not `exactly_once`");
        request.outbox().cloned().ok_or_else(missing)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("messages", &self.len()).finish_non_exhaustive()
    }
}

/// Whether one transaction can span both: what is received, and what is published.
pub(crate) fn fits(source: &Endpoint, destination: &Endpoint) -> Result<(), Error> {
    if (source.system, &source.cluster) == (destination.system, &destination.cluster) {
        return Ok(());
    }
    let what = format!(
        "{}://{} and {}://{} are not on the same broker, and no transaction spans two",
        source.system, source.destination, destination.system, destination.destination
    );
    Err(Error::new(ErrorKind::Unsupported, "outbox", what))
}
