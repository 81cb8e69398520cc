//! A broker that is one partition of a log: it hands out messages as they come, whatever their keys, and can neither
//! delay nor take back. What is left of order and retries is the router's.

use std::task::{Context, Poll};
use std::time::Duration;

use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Lease, Outcome, Position};
use mainspring_pubsub::{Confirmation, Delivery, Error, Message, Subscriber};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

#[derive(Debug)]
pub struct Partition {
    messages: UnboundedReceiver<Message>,
    settled: UnboundedSender<(u64, Outcome)>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    offset: u64,
    settled: UnboundedSender<(u64, Outcome)>,
}

/// Where to write, what reads it, and how each message was settled, by its place in the log.
pub fn partition() -> (UnboundedSender<Message>, Subscriber, UnboundedReceiver<(u64, Outcome)>) {
    let (sender, messages) = mpsc::unbounded_channel();
    let (settled, outcomes) = mpsc::unbounded_channel();
    (sender, Subscriber::new(Partition { messages, settled, next: 0 }), outcomes)
}

#[async_trait::async_trait]
impl driver::Subscriber for Partition {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        let Some(message) = std::task::ready!(self.messages.poll_recv(cx)) else { return Poll::Ready(Ok(None)) };
        let offset = self.next;
        self.next += 1;
        let lease = Entry { offset, settled: self.settled.clone() };
        Poll::Ready(Ok(Some(Delivery::new(message, Box::new(lease)).with_position(Position::new(0, offset)))))
    }

    async fn close(&mut self, _deadline: Instant) -> Result<(), Error> {
        self.messages.close();
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.reject = true;
        capabilities
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("partition", "log")
    }
}

impl Lease for Entry {
    fn settle(self: Box<Self>, outcome: Outcome) -> Confirmation {
        self.settled.send((self.offset, outcome)).ok();
        Confirmation::settled()
    }

    fn extend(&self, _by: Duration) -> Confirmation {
        Confirmation::settled()
    }

    fn expires(&self) -> Option<Instant> {
        None
    }
}
