//! What the router does with messages whose handlers succeed or fail.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, assert_empty, body, log, next, orders, start, text};
use mainspring_pubsub::{
    Attempt, Attributes, Backoff, Bytes, ErrorKind, Failure, Json, Key, Message, Policy, Request, Router, State, Text,
};
use tokio::time::{Instant, sleep};

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Order {
    id: String,
    quantity: u32,
}

fn order(id: &str, quantity: u32) -> Message {
    Message::json(&Order { id: id.to_owned(), quantity }).unwrap().with_key(id)
}

/// Retries at once, so that tests need not wait.
fn eager() -> Policy {
    Policy::default().backoff(Backoff::fixed(Duration::ZERO))
}

#[tokio::test]
async fn a_handler_gets_what_it_asks_for() {
    async fn ship(
        State(log): State<Arc<common::Log<String>>>,
        Json(order): Json<Order>,
        Key(key): Key,
        Attributes(attributes): Attributes,
        Attempt(attempt): Attempt,
        Text(text): Text,
        bytes: Bytes,
        message: Message,
    ) -> Result<(), Failure> {
        assert_eq!(text.as_bytes(), bytes);
        assert_eq!(message.body, bytes);
        log.note(format!("{} {key:?} {:?} {attempt}", order.id, attributes.get("to")));
        Ok(())
    }
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = start(Router::new().route("ship", inbox, ship).with_state(Arc::clone(&log)));
    publisher.publish(order("A1", 2).with_attribute("to", "Kyoto")).await.unwrap();
    assert_eq!(log.wait(1).await, [r#"A1 Some("A1") Some("Kyoto") 1"#]);
    router.stop().await;
}

#[tokio::test]
async fn a_handled_message_is_acked_once() {
    let (brokers, publisher, inbox) = orders().await;
    let log = log();
    let seen = Arc::clone(&log);
    let router = start(Router::new().route("ship", inbox, move |Text(text): Text| {
        let seen = Arc::clone(&seen);
        async move {
            seen.note(text);
            Ok(())
        }
    }));
    publisher.publish(Message::new("a")).await.unwrap();
    publisher.publish(Message::new("b")).await.unwrap();
    let mut handled = log.wait(2).await;
    handled.sort();
    assert_eq!(handled, ["a", "b"]);
    let cx = router.cx.clone();
    router.stop().await;
    assert_eq!(cx.board().tallies(), [("deliveries_returned", 0), ("deliveries_settled", 2)]);
    assert_empty(&mut brokers.subscriber("memory://orders?group=ship").await.unwrap()).await;
}

#[tokio::test]
async fn a_question_mark_and_a_panic_both_mean_try_again() {
    async fn flaky(State(log): State<Arc<common::Log<u32>>>, Attempt(attempt): Attempt) -> Result<(), Failure> {
        log.note(attempt);
        match attempt {
            1 => Err("not yet")?,
            2 => panic!("not yet either"),
            3 => Err(Failure::retry("still not").after(Duration::from_millis(1))),
            _ => Ok(()),
        }
    }
    let (_brokers, publisher, inbox) = orders().await;
    let log = log();
    let router = Router::new().route("ship", inbox, flaky).with_state(Arc::clone(&log)).policy(eager());
    let router = start(router);
    publisher.publish(Message::new("x")).await.unwrap();
    assert_eq!(log.wait(4).await, [1, 2, 3, 4]);
    router.stop().await;
    assert_eq!(log.rest(), [0_u32; 0]);
}
