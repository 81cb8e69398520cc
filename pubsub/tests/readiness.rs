//! When a route is ready.

mod common;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{PATIENCE, Running, orders, start};
use mainspring_pubsub::driver::{self, Capabilities, Endpoint};
use mainspring_pubsub::{Delivery, Error, Message, Publisher, Router, Subscriber};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// What keeps a subscriber from receiving.
#[derive(Clone, Debug, Default)]
struct Door(Arc<Mutex<(Option<String>, Option<Waker>)>>);

/// A subscriber behind a door: what is in hand comes through it all the same.
#[derive(Debug)]
struct Waiting(Subscriber, Door);

impl Door {
    fn closed(why: &str) -> Self {
        let door = Self::default();
        door.0.lock().unwrap().0 = Some(why.to_owned());
        door
    }

    fn open(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = None;
        state.1.take().expect("somebody has polled").wake();
    }
}

#[async_trait::async_trait]
impl driver::Subscriber for Waiting {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        self.1.0.lock().unwrap().1 = Some(cx.waker().clone());
        std::pin::pin!(self.0.next()).poll(cx)
    }

    async fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        self.0.close(deadline).await
    }

    fn unready(&self) -> Option<String> {
        self.1.0.lock().unwrap().0.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("waiting", "orders")
    }
}

/// A route whose subscriber waits, what is published to it, and what it has handled.
async fn waiting(door: &Door) -> (Publisher, Running, mpsc::UnboundedReceiver<()>) {
    let (_brokers, publisher, inbox) = orders().await;
    let (handled, handling) = mpsc::unbounded_channel();
    let handler = move |_: Message| {
        handled.send(()).unwrap();
        async { Ok(()) }
    };
    let router = Router::new().route("ship", Subscriber::new(Waiting(inbox, door.clone())), handler);
    (publisher, start(router), handling)
}

async fn until(router: &Running, expected: &[&str]) {
    let reached = async {
        loop {
            let unready: Vec<_> = router.cx.board().unready().into_iter().map(|(_, why)| why).collect();
            if unready == expected {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let reached = timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{:?} and not {expected:?}", router.cx.board().unready());
}

#[tokio::test(start_paused = true)]
async fn a_route_is_not_ready_before_its_subscriber_receives_and_says_why() {
    let door = Door::closed("not yet a member of the group `ship`");
    let (_publisher, router, _handling) = waiting(&door).await;
    until(&router, &["route `ship` does not receive yet: not yet a member of the group `ship`"]).await;
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(router.cx.board().unready().len(), 1);
    door.open();
    until(&router, &[]).await;
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_the_best_proof_that_a_route_receives() {
    let door = Door::closed("not yet a member");
    let (publisher, router, mut handling) = waiting(&door).await;
    until(&router, &["route `ship` does not receive yet: not yet a member"]).await;
    publisher.publish(Message::new("tea")).await.unwrap();
    handling.recv().await.unwrap();
    until(&router, &[]).await;
    router.stop().await;
}
