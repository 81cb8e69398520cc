//! Where what is given up goes, when the broker keeps no dead letters itself.

mod common;

use std::error::Error as _;
use std::sync::Mutex;
use std::task::{Context, Poll};

use common::{brokers, next, orders, start, text};
use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Opener, Url};
use mainspring_pubsub::{Brokers, Delivery, Error, ErrorKind, Failure, Message, Publisher, Router, Subscriber, Text};
use tokio::time::Instant;

async fn refuse(Text(_): Text) -> Result<(), Failure> {
    Err(Failure::reject("never"))
}

/// What `bare://` says when it is asked for a place for dead letters.
#[derive(Debug)]
enum Place {
    There(Publisher),
    None,
    Refused,
}

#[tokio::test(start_paused = true)]
async fn the_router_opens_the_place_that_goes_with_the_source() {
    let (inner, publisher, inbox) = orders().await;
    let place = inner.publisher("memory://rejects").await.unwrap();
    let brokers = bare(inbox, Place::There(place));
    let router = start(Router::new().route("ship", brokers.subscriber("bare://orders").await.unwrap(), refuse));
    publisher.publish(Message::new("a").with_key("k")).await.unwrap();
    let letter = next(&mut inner.subscriber("memory://rejects").await.unwrap()).await;
    assert_eq!((text(&letter).as_str(), letter.message().key.as_deref()), ("a", Some("k")));
    assert_eq!(letter.message().attributes["dead-letter-reason"], "never");
    assert_eq!(letter.message().attributes["dead-letter-source"], "bare://orders");
    router.stop().await;
    // Done with at its source, and kept nowhere else.
    common::assert_empty(&mut inner.subscriber("memory://orders?group=ship").await.unwrap());
    common::assert_empty(&mut inner.subscriber("memory://orders.dead").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_keeps_dead_letters_itself_is_told_all_that_is_known() {
    let (broker, publisher, inbox) = orders().await;
    let router = start(Router::new().route("ship", inbox, refuse));
    publisher.publish(Message::new("a").with_key("k").with_attribute("note", "n")).await.unwrap();
    let letter = next(&mut broker.subscriber("memory://orders.dead").await.unwrap()).await;
    let message = letter.message();
    assert_eq!(
        (text(&letter).as_str(), message.key.as_deref(), message.attributes["note"].as_str()),
        ("a", Some("k"), "n")
    );
    let noted =
        ["reason", "attempts", "route", "source"].map(|what| &*message.attributes[&format!("dead-letter-{what}")]);
    assert_eq!(noted, ["never", "1", "ship", "memory://orders"]);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_named_is_the_one_that_is_used() {
    let (inner, publisher, inbox) = orders().await;
    let brokers = bare(inbox, Place::Refused);
    let router = Router::new()
        .route("ship", brokers.subscriber("bare://orders").await.unwrap(), refuse)
        .dead_letter(inner.publisher("memory://rejects").await.unwrap());
    let router = start(router);
    publisher.publish(Message::new("a")).await.unwrap();
    assert_eq!(text(&next(&mut inner.subscriber("memory://rejects").await.unwrap()).await), "a");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_place_the_router_does_not_start_and_says_what_mends_it() {
    for (place, kind, what) in [
        (
            Place::None,
            ErrorKind::Config,
            "route `ship`: bare://orders keeps no dead letters, so what is given up would come again for ever",
        ),
        (
            Place::Refused,
            ErrorKind::PermissionDenied,
            "route `ship`: no place for the dead letters of bare://orders: bare: open: not allowed",
        ),
    ] {
        let (_inner, _publisher, inbox) = orders().await;
        let brokers = bare(inbox, place);
        let router = Router::new().route("ship", brokers.subscriber("bare://orders").await.unwrap(), refuse);
        let error = start(router).ended().await.unwrap_err();
        let said = format!("{error}: {}", error.source().unwrap());
        assert_eq!(error.kind(), kind, "{said}");
        assert!(said.contains(what) && said.contains("`Router::dead_letter`"), "{said}");
    }
    // Neither does one whose subscriber came from nowhere.
    let (_inner, _publisher, inbox) = orders().await;
    let error = start(Router::new().route("ship", Subscriber::new(Bare(inbox)), refuse)).ended().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

/// Brokers with a `bare://` that reads from `inbox` and keeps no dead letters.
fn bare(inbox: Subscriber, place: Place) -> Brokers {
    brokers().register("bare", BareOpener(Mutex::new(Some((inbox, place)))))
}

#[derive(Debug)]
struct BareOpener(Mutex<Option<(Subscriber, Place)>>);

#[derive(Debug)]
struct Bare(Subscriber);

#[derive(Debug)]
struct Passing(Publisher);

#[async_trait::async_trait]
impl Opener for BareOpener {
    async fn publisher(&self, url: &Url) -> Result<Box<dyn driver::Publisher>, Error> {
        Err(url.fault("nothing to publish to", ""))
    }

    async fn subscriber(&self, _url: &Url) -> Result<Box<dyn driver::Subscriber>, Error> {
        let (inbox, place) = self.0.lock().unwrap().take().expect("opened once");
        // The place is asked for later.
        let spare = brokers().subscriber("memory://nothing").await?;
        *self.0.lock().unwrap() = Some((spare, place));
        Ok(Box::new(Bare(inbox)))
    }

    async fn dead_letters(&self, url: &Url) -> Result<Option<Box<dyn driver::Publisher>>, Error> {
        assert_eq!(url.name(), "orders");
        match self.0.lock().unwrap().take().expect("asked for once").1 {
            Place::There(publisher) => Ok(Some(Box::new(Passing(publisher)))),
            Place::None => Ok(None),
            Place::Refused => Err(Error::new(ErrorKind::PermissionDenied, "open", "not allowed").with_backend("bare")),
        }
    }
}

#[async_trait::async_trait]
impl driver::Subscriber for Bare {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        std::pin::pin!(self.0.next()).poll(cx)
    }

    async fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        self.0.close(deadline).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.0.capabilities();
        capabilities.reject = false;
        capabilities
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("bare", "orders")
    }
}

#[async_trait::async_trait]
impl driver::Publisher for Passing {
    async fn publish(&self, message: Message, _deadline: Instant) -> Result<driver::Receipt, Error> {
        self.0.publish(message).await
    }

    async fn flush(&self, deadline: Instant) -> Result<(), Error> {
        self.0.flush(deadline).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities().clone()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("bare", "orders.dead")
    }
}
