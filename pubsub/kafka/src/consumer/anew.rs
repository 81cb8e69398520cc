//! Beginning anew when it is not known what became of a transaction: only what is committed tells where to go on.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mainspring_pubsub::{Error, ErrorKind};
use tracing::warn;

use super::feed::Feed;
use super::transactions::Transactions;
use crate::error::error;
use crate::options::Options;

/// How soon a producer for transactions may be fenced again before that is taken for a fight over its name.
const FENCED_AGAIN: Duration = Duration::from_secs(60);
/// How often brokers that are gone are asked whether they are back.
const PAUSE: Duration = Duration::from_secs(1);

/// What a consumer remembers of the times that it began anew.
#[derive(Debug, Default)]
pub(super) struct Anew {
    begun: bool,
    last_fenced: Option<Instant>,
}

impl Anew {
    /// Has everything that is held given up, and makes another producer for transactions, which has the broker end the
    /// last one, one way or the other. False when told to stop.
    pub(super) fn begin(&mut self, options: &Options, feed: &Feed, fenced: bool, what: &str) -> Result<bool, Error> {
        self.begun = true;
        let partitions: Vec<_> = feed.generations().into_keys().collect();
        drop(feed.forget(&partitions));
        let Some(old) = feed.transactions().take() else { return Ok(true) };
        let claim = Arc::clone(&old.claim);
        drop(old);
        if fenced && self.last_fenced.replace(Instant::now()).is_some_and(|last| last.elapsed() < FENCED_AGAIN) {
            let what = format!(
                "another process makes transactions as `{}`; give each member of the group an `instance=` of its own",
                claim.name()
            );
            return Err(error(ErrorKind::Other, "commit", what));
        }
        warn!(topic = options.topic, what, "a transaction's end is not known; beginning anew from what is committed");
        loop {
            if feed.stopping().is_some() {
                return Ok(false);
            }
            match Transactions::open(options, Arc::clone(&claim), Instant::now() + PAUSE) {
                Ok(transactions) => {
                    feed.begin_transactions(transactions);
                    feed.set_down(None);
                    return Ok(true);
                }
                Err(error) if error.is_retryable() => {
                    feed.set_down(Some((error.kind(), error.to_string())));
                    thread::park_timeout(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether to wait for an error's end: the brokers were there before, and so they will be again.
    pub(super) fn outlasts(&self, error: &Error) -> bool {
        self.begun && error.is_retryable()
    }

    /// Waits a while, and lets whoever receives know why. False when told to stop.
    pub(super) fn pause(&self, feed: &Feed, error: &Error) -> bool {
        feed.set_down(Some((error.kind(), error.to_string())));
        if feed.stopping().is_some() {
            return false;
        }
        thread::park_timeout(PAUSE);
        true
    }
}
