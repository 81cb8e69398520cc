//! A consumer of one group.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use super::topic::Topic;
use crate::driver::{self, Capabilities, Endpoint, PartitionProgress, Progress};
use crate::{Delivery, Error};

#[derive(Debug)]
pub(super) struct MemorySubscriber {
    topic: Arc<Topic>,
    group: usize,
    group_name: String,
    timer: Option<Pin<Box<Sleep>>>,
    closed: bool,
}

impl MemorySubscriber {
    pub(super) fn new(topic: Arc<Topic>, group_name: &str) -> Self {
        let group = topic.join(group_name);
        Self { topic, group, group_name: group_name.to_owned(), timer: None, closed: false }
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

/// What waits for a group, also when nobody receives any more.
#[derive(Debug)]
struct Waiting {
    topic: Arc<Topic>,
    group: usize,
}

impl Progress for Waiting {
    fn partitions(&self) -> Vec<PartitionProgress> {
        Vec::new()
    }

    fn waiting(&self) -> Option<usize> {
        Some(self.topic.waiting(self.group))
    }
}

#[async_trait]
impl driver::Subscriber for MemorySubscriber {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        if self.closed {
            return Poll::Ready(Ok(None));
        }
        // A topic that is never empty would otherwise keep its reader from ever yielding to others.
        let progress = ready!(coop::poll_proceed(cx));
        loop {
            match self.topic.poll_lend(self.group, cx) {
                Ok(delivery) => {
                    progress.made_progress();
                    return Poll::Ready(Ok(Some(delivery)));
                }
                Err(None) => return Poll::Pending,
                Err(Some(at)) => ready!(self.poll_timer(at, cx)),
            }
        }
    }

    async fn close(&mut self, _deadline: Instant) -> Result<(), Error> {
        self.closed = true;
        Ok(())
    }

    /// Every settlement could be one: there is nothing to prepare.
    async fn begin_transactions(&mut self, _deadline: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn progress(&self) -> Option<Arc<dyn Progress>> {
        Some(Arc::new(Waiting { topic: Arc::clone(&self.topic), group: self.group }))
    }

    fn capabilities(&self) -> Capabilities {
        self.topic.config().capabilities()
    }

    fn endpoint(&self) -> Endpoint {
        self.topic.endpoint().with_group(&self.group_name)
    }
}
