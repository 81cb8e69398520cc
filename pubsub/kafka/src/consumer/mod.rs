//! Messages in: an operating system's thread for each consumer fetches, commits and answers rebalances; the subscriber
//! hands out what it has fetched.
//!
//! | file | |
//! |---|---|
//! | `worker.rs` | the thread's work, round by round |
//! | `fetch.rs` | how messages come |
//! | `feed.rs`, `state.rs`, `partition.rs` | where they lie, and how many |
//! | `lend.rs`, `lease.rs` | how they are handed out and settled |
//! | `waiting.rs` | what is said of a partition that waits for one message |
//! | `commits.rs` | when an offset is committed |
//! | `rebalance.rs`, `left.rs` | what happens when partitions come and go |
//! | `join.rs`, `leave.rs` | when a consumer is a member of its group, and how it leaves |
//! | `health.rs` | what is wrong when nothing comes though brokers answer |
//! | `exactly_once.rs`, `batch.rs`, `transactions.rs`, `anew.rs` | commits together with what handlers publish |
//! | `context.rs` | what the client says besides |

mod anew;
mod batch;
mod commits;
mod context;
mod exactly_once;
mod feed;
mod fetch;
mod health;
mod join;
mod lease;
mod leave;
mod left;
mod lend;
mod partition;
mod rebalance;
mod state;
#[cfg(test)]
mod tests;
mod transactions;
mod waiting;
mod worker;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use mainspring_pubsub::driver::{self, Capabilities, Delivery, Endpoint};
use mainspring_pubsub::{Error, ErrorKind};
use tokio::sync::oneshot;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::error::{error, uncommitted};
use crate::instance::{self, Claim, Names};
use crate::options::{Membership, Options, Reset};
use crate::{SYSTEM, publisher};
use feed::Feed;
use lend::Nothing;
use transactions::Transactions;

/// How long a consumer that was dropped, and not closed, may take to leave its group.
const FAREWELL: Duration = Duration::from_secs(10);

pub(crate) struct KafkaSubscriber {
    feed: Arc<Feed>,
    options: Arc<Options>,
    names: Names,
    endpoint: Endpoint,
    replay: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Ends with the thread.
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Tells of the thread's end, however it comes.
struct End(Arc<Feed>, #[expect(dead_code, reason = "its drop is what tells")] oneshot::Sender<()>);

impl KafkaSubscriber {
    /// Starts the consumer's thread, and waits until it has found the topic.
    pub(crate) async fn open(options: Options, group: String, names: Names) -> Result<Self, Error> {
        let feed = Arc::new(Feed::default());
        let endpoint = Endpoint::new(SYSTEM, &options.topic).with_group(&group);
        let replay = options.reset == Reset::Earliest;
        let claim = match options.membership {
            Membership::Static => Some(names.claim(&format!("{group}.{}", instance_of(&options)?))),
            Membership::Dynamic => None,
        };
        let member =
            claim.as_ref().map(|claim| Ok::<_, Error>(format!("{}.{}", instance_of(&options)?, claim.number())));
        let member = member.transpose()?;
        let options = Arc::new(options);
        let (opened, opening) = oneshot::channel();
        let (ending, ended) = oneshot::channel::<()>();
        let work = {
            let (feed, options) = (Arc::clone(&feed), Arc::clone(&options));
            move || {
                let _end = End(Arc::clone(&feed), ending);
                worker::run(&options, &group, member.as_deref(), &feed, opened);
                // Until it has left, the name is taken.
                drop(claim);
            }
        };
        let thread = thread::Builder::new().name("kafka-consumer".to_owned()).spawn(work);
        let thread =
            thread.map_err(|cause| error(ErrorKind::Other, "open", "no thread for the consumer").with_source(cause))?;
        // Made first, so that the thread is told to end when this future is dropped.
        let (ended, thread) = (Some(ended), Some(thread));
        let mut subscriber = Self { feed, options, names, endpoint, replay, timer: None, ended, thread };
        let early = || Err(error(ErrorKind::Other, "open", "the consumer's thread ended early"));
        opening.await.unwrap_or_else(|_| early())?;
        if let Some(cluster) = subscriber.feed.cluster.get() {
            subscriber.endpoint.cluster = Some(cluster.clone());
        }
        Ok(subscriber)
    }

    /// The name under which transactions are made, which no other member of the group may have.
    fn claim(&self) -> Result<Claim, Error> {
        let instance = instance_of(&self.options)?;
        let Endpoint { destination, group, .. } = &self.endpoint;
        let group = group.as_deref().unwrap_or_default();
        Ok(self.names.claim(&format!("mainspring.{group}.{destination}.{instance}")))
    }

    /// Has `cx` woken at `at`; ready if that is over already.
    fn poll_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}

/// What tells this member of the group from the others, and stays.
fn instance_of(options: &Options) -> Result<String, Error> {
    let what = "the host has no name to tell this member of the group from others by; set the option `instance`";
    let unknown = || error(ErrorKind::Other, "open", what);
    options.instance.clone().or_else(instance::host).ok_or_else(unknown)
}

#[async_trait]
impl driver::Subscriber for KafkaSubscriber {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        // A topic that is never empty would otherwise keep its reader from ever yielding to others.
        let progress = ready!(coop::poll_proceed(cx));
        loop {
            match self.feed.poll_lend(cx) {
                Ok(delivery) => {
                    progress.made_progress();
                    return Poll::Ready(Ok(Some(delivery)));
                }
                Err(Nothing::Closed) => return Poll::Ready(Ok(None)),
                Err(Nothing::Failed(error)) => return Poll::Ready(Err(error)),
                Err(Nothing::Until(None)) => return Poll::Pending,
                Err(Nothing::Until(Some(due))) => ready!(self.poll_timer(due, cx)),
            }
        }
    }

    /// Registers the name of this member for transactions, which ends what an earlier process of the name has left open.
    async fn begin_transactions(&mut self, deadline: Instant) -> Result<(), Error> {
        let (options, claim) = (Arc::clone(&self.options), Arc::new(self.claim()?));
        let (opened, opening) = oneshot::channel();
        // The client only waits by blocking.
        let open = move || {
            // When nobody waits any more, the producer is closed here.
            let _ = opened.send(Transactions::open(&options, claim, deadline.into_std()));
        };
        let spawned = thread::Builder::new().name("kafka-open".to_owned()).spawn(open);
        spawned.map_err(|cause| error(ErrorKind::Other, "open", "no thread to open with").with_source(cause))?;
        let early = || Err(error(ErrorKind::Other, "open", "the opening thread ended early"));
        let transactions = opening.await.unwrap_or_else(|_| early())?;
        self.feed.begin_transactions(transactions);
        Ok(())
    }

    /// Commits, and leaves the group so that others take over at once. Deliveries that are out are lost. A thread that
    /// cannot end by the deadline, since the broker does not answer, is left behind.
    async fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        self.feed.stop(deadline.into_std());
        let Some(ended) = &mut self.ended else { return Ok(()) };
        if timeout_at(deadline, ended).await.is_err() {
            return Err(uncommitted(error(ErrorKind::Timeout, "commit", "no answer in time")));
        }
        self.ended = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            return Err(error(ErrorKind::Other, "close", "the consumer's thread panicked"));
        }
        self.feed.uncommitted().map_or(Ok(()), |cause| Err(uncommitted(cause)))
    }

    fn unready(&self) -> Option<String> {
        let group = self.endpoint.group.as_deref().unwrap_or_default();
        (!self.feed.has_joined()).then(|| format!("not yet a member of the group `{group}`"))
    }

    fn progress(&self) -> Option<Arc<dyn driver::Progress>> {
        Some(Arc::clone(&self.feed) as _)
    }

    fn capabilities(&self) -> Capabilities {
        crate::capabilities(self.replay, publisher::limits())
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

impl Drop for KafkaSubscriber {
    /// Has the thread commit and leave; nobody waits for it.
    fn drop(&mut self) {
        self.feed.stop(std::time::Instant::now() + FAREWELL);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(Some(error(ErrorKind::Other, "receive", "the consumer's thread panicked")));
        }
    }
}

impl fmt::Debug for KafkaSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSubscriber")
            .field("topic", &self.endpoint.destination)
            .field("group", &self.endpoint.group)
            .field("feed", &self.feed)
            .finish_non_exhaustive()
    }
}
