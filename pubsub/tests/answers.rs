//! Settlements that the broker answers later.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{PATIENCE, Running, log, start};
use mainspring_pubsub::driver::{self, Capabilities, Confirmer, Endpoint, Lease, Outcome};
use mainspring_pubsub::{Confirmation, Delivery, Error, ErrorKind, Failure, Message, Router, Subscriber, Text};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// What a broker has still to answer.
#[derive(Clone, Debug, Default)]
struct Open(Arc<Mutex<VecDeque<Confirmer>>>);

/// A broker that has messages, answers when it is told to, and may answer the rest when its subscriber closes.
#[derive(Debug)]
struct Slow {
    messages: VecDeque<Message>,
    open: Open,
    answers_at_close: bool,
}

#[derive(Debug)]
struct SlowLease(Open);

impl Open {
    /// Answers the oldest settlement, which has to come.
    async fn answer(&self, answer: Result<(), Error>) {
        let next = async {
            loop {
                if let Some(next) = self.0.lock().unwrap().pop_front() {
                    break next;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, next).await.expect("something is settled").confirm(answer);
    }
}

#[async_trait::async_trait]
impl driver::Subscriber for Slow {
    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        let Some(message) = self.messages.pop_front() else { return Poll::Pending };
        Poll::Ready(Ok(Some(Delivery::new(message, Box::new(SlowLease(self.open.clone()))))))
    }

    async fn close(&mut self, _deadline: Instant) -> Result<(), Error> {
        if self.answers_at_close {
            self.open.0.lock().unwrap().drain(..).for_each(|confirmer| confirmer.confirm(Ok(())));
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.reject = true;
        capabilities
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("slow", "orders")
    }
}

impl Lease for SlowLease {
    fn settle(self: Box<Self>, _outcome: Outcome) -> Confirmation {
        let (confirmer, confirmation) = Confirmation::channel();
        self.0.0.lock().unwrap().push_back(confirmer);
        confirmation
    }

    fn extend(&self, _by: Duration) -> Confirmation {
        Confirmation::settled()
    }

    fn expires(&self) -> Option<Instant> {
        None
    }
}

fn slow(messages: &[&'static str], answers_at_close: bool) -> (Open, Subscriber) {
    let open = Open::default();
    let messages = messages.iter().map(|text| Message::new(*text)).collect();
    (open.clone(), Subscriber::new(Slow { messages, open, answers_at_close }))
}

async fn ship(Text(text): Text) -> Result<(), Failure> {
    if text == "bad" { Err(Failure::reject("no")) } else { Ok(()) }
}

async fn settled(router: &Running, count: u64) {
    let reached = async {
        while router.tally("deliveries_settled") < count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, reached).await.expect("it is counted");
}

#[tokio::test(start_paused = true)]
async fn a_message_counts_as_settled_when_the_broker_has_said_so() {
    let (open, inbox) = slow(&["lost", "kept"], false);
    let router = start(Router::new().route("ship", inbox, ship).concurrency(1));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(router.tally("deliveries_settled"), 0, "nobody has answered");
    open.answer(Err(Error::new(ErrorKind::Lost, "settle", "on purpose"))).await;
    open.answer(Ok(())).await;
    settled(&router, 1).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(router.tally("deliveries_settled"), 1, "what is lost was not settled");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_watcher_hears_of_a_dead_letter_when_it_is_safe() {
    let (open, inbox) = slow(&["bad", "bad"], false);
    let (told, mut telling) = mpsc::unbounded_channel();
    let router = Router::new().route("ship", inbox, ship).concurrency(1);
    let router = start(router.on_dead_letter(move |letter| told.send(letter.reason.to_owned()).unwrap()));
    sleep(Duration::from_secs(10)).await;
    assert!(telling.try_recv().is_err(), "the broker may still refuse it");
    open.answer(Err(Error::new(ErrorKind::Lost, "settle", "on purpose"))).await;
    open.answer(Ok(())).await;
    assert_eq!(timeout(PATIENCE, telling.recv()).await.unwrap().unwrap(), "no");
    sleep(Duration::from_secs(10)).await;
    assert!(telling.try_recv().is_err(), "the lost one is nobody's dead letter yet");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_come_with_the_close_are_counted() {
    let (_open, inbox) = slow(&["a", "b", "c"], true);
    let seen = log();
    let handler = {
        let seen = Arc::clone(&seen);
        move |Text(text): Text| {
            seen.note(text);
            async { Ok(()) }
        }
    };
    let mut router = start(Router::new().route("ship", inbox, handler));
    seen.wait(3).await;
    router.request_stop(PATIENCE);
    router.ended().await.unwrap();
    assert_eq!(router.tally("deliveries_settled"), 3);
    assert!(router.cx.board().take_flushes().is_empty(), "nothing was given up");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_answered_is_named_at_the_stop() {
    let (open, inbox) = slow(&["a", "b"], false);
    let mut router = start(Router::new().route("ship", inbox, ship));
    open.answer(Ok(())).await;
    settled(&router, 1).await;
    // A second signal would end the process here, and the message would come again.
    assert_eq!(router.cx.board().tallies_with_held(), [("deliveries_returned", 1), ("deliveries_settled", 1)]);
    router.request_stop(PATIENCE);
    router.ended().await.unwrap();
    let [flush] = router.cx.board().take_flushes().try_into().unwrap();
    let said = flush.run().await.unwrap_err().to_string();
    assert!(said.contains("route `ship`: the broker has not answered for 1 settled"), "{said}");
}
