//! What settlements come to: counted when the broker has answered, which for some is at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::stream::{FuturesUnordered, StreamExt};
use mainspring_daemon::Chain;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tracing::warn;

use super::dead_letter::GivenUp;
use super::shared::Shared;
use crate::metrics::Fate;
use crate::{Confirmation, Error, ErrorKind};

/// Where settlements go whose answer is still to come. There are as many as the broker leaves open.
pub(super) struct Answers {
    /// `None` when no more will come.
    sender: UnboundedSender<Option<Open>>,
    open: AtomicUsize,
}

/// The other end, for [`Coming::listen`].
pub(super) struct Coming(UnboundedReceiver<Option<Open>>);

/// A settlement whose answer is still to come.
struct Open {
    confirmation: Confirmation,
    fate: Fate,
    given_up: Option<Box<GivenUp>>,
}

impl Answers {
    pub(super) fn new() -> (Self, Coming) {
        let (sender, coming) = mpsc::unbounded_channel();
        (Self { sender, open: AtomicUsize::new(0) }, Coming(coming))
    }

    /// How many are still to come.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Nothing more will be settled.
    pub(super) fn end(&self) {
        // Nobody who would listen: nothing is waited for.
        let _ = self.sender.send(None);
    }
}

impl Coming {
    /// Has answers be counted as they come, until all have come of what was settled before [`Answers::end`].
    pub(super) async fn listen(mut self, shared: Arc<Shared>) {
        let (mut open, mut more) = (FuturesUnordered::new(), true);
        loop {
            tokio::select! {
                next = self.0.recv(), if more => match next.flatten() {
                    Some(Open { confirmation, fate, given_up }) => {
                        open.push(async move { (confirmation.await, fate, given_up) });
                    }
                    None => more = false,
                },
                Some((answer, fate, given_up)) = open.next() => {
                    shared.answers.open.fetch_sub(1, Relaxed);
                    match answer {
                        Ok(()) => shared.landed(fate, given_up),
                        Err(error) => shared.refused(&error, None),
                    }
                }
                else => return,
            }
        }
    }
}

impl Shared {
    /// Counts a message that was settled, as soon as `confirmation` says whether that landed. `id` tells which it was.
    pub(super) fn count_settled(
        &self,
        confirmation: Confirmation,
        fate: Fate,
        given_up: Option<Box<GivenUp>>,
        id: impl FnOnce() -> String,
    ) {
        match confirmation.answer() {
            Some(Ok(())) => self.landed(fate, given_up),
            Some(Err(error)) => self.refused(error, Some(id())),
            None => {
                self.answers.open.fetch_add(1, Relaxed);
                // Without a listener the process is past counting.
                let _ = self.answers.sender.send(Some(Open { confirmation, fate, given_up }));
            }
        }
    }

    /// The broker took the settlement.
    fn landed(&self, fate: Fate, given_up: Option<Box<GivenUp>>) {
        let count = if fate == Fate::Returned { &self.returned } else { &self.settled };
        count.add(1);
        self.metrics.fate(fate);
        if let Some(given_up) = given_up {
            given_up.tell(self);
        }
    }

    /// It did not.
    fn refused(&self, error: &Error, id: Option<String>) {
        self.metrics.fate(if error.kind() == ErrorKind::Lost { Fate::Lost } else { Fate::Retried });
        warn!(route = self.route, message_id = id, error = %Chain(error), "settlement did not land");
    }
}
