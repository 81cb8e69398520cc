//! The broker's answer to a settlement.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::{Error, ErrorKind};

/// Tells whether a settlement landed. The settlement is on its way already: awaiting this only waits for the answer,
/// and dropping it changes nothing.
///
/// `Ok` means that the broker took it. [`ErrorKind::Lost`] means that the lease had run out or the partition had moved,
/// so the message may be handled again elsewhere; [`ErrorKind::Unsupported`] that the broker cannot do this.
pub struct Confirmation(State);

/// The driver's end of a [`Confirmation`]. Dropping it without an answer answers [`ErrorKind::Unavailable`].
#[derive(Debug)]
pub struct Confirmer(oneshot::Sender<Result<(), Error>>);

enum State {
    Done(Option<Result<(), Error>>),
    Waiting(oneshot::Receiver<Result<(), Error>>),
}

impl Confirmation {
    /// The broker took the settlement.
    pub fn settled() -> Self {
        Self(State::Done(Some(Ok(()))))
    }

    /// The settlement did not land.
    pub fn failed(error: Error) -> Self {
        Self(State::Done(Some(Err(error))))
    }

    /// The lease was lost before the settlement.
    pub fn lost(backend: &'static str) -> Self {
        let what = "the lease was lost before the settlement; the message may be handled again";
        Self::failed(Error::new(ErrorKind::Lost, "settle", what).with_backend(backend))
    }

    /// A confirmation that is answered later.
    pub fn channel() -> (Confirmer, Self) {
        let (sender, receiver) = oneshot::channel();
        (Confirmer(sender), Self(State::Waiting(receiver)))
    }

    /// The answer; `None` while it is still to come.
    pub(crate) fn answer(&self) -> Option<Result<(), &Error>> {
        match &self.0 {
            State::Done(result) => result.as_ref().map(|result| result.as_ref().copied()),
            State::Waiting(_) => None,
        }
    }
}

impl Confirmer {
    /// Answers.
    pub fn confirm(self, result: Result<(), Error>) {
        // Whoever settled need not care to listen.
        let _ = self.0.send(result);
    }
}

impl Future for Confirmation {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.0 {
            State::Done(result) => result.take().expect("a confirmation is awaited once"),
            State::Waiting(receiver) => match ready!(Pin::new(receiver).poll(cx)) {
                Ok(result) => result,
                Err(_) => Err(Error::new(ErrorKind::Unavailable, "settle", "the driver ended without an answer")),
            },
        };
        self.0 = State::Done(None);
        Poll::Ready(result)
    }
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            State::Done(result) => f.debug_tuple("Confirmation").field(result).finish(),
            State::Waiting(_) => f.write_str("Confirmation(waiting)"),
        }
    }
}
