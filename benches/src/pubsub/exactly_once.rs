//! Consume, and produce what comes of it: at least once, and exactly once.

use std::io;

use mainspring_pubsub::{Bytes, Failure, Message, Outbox, Publisher, Router, State};

use super::kafka::{Kafka, WINDOW, body, publish_all, unique};
use super::{Handled, Running};
use crate::rounds::{Comparison, Row, Sample};

const MESSAGES: usize = 50_000;
const AT_ONCE: usize = 1000;

#[derive(Clone)]
struct Copying {
    to: Publisher,
    handled: Handled,
}

/// Publishes, and is acked then: a crash in between has it published twice.
async fn twice_at_worst(State(copying): State<Copying>, body: Bytes) -> Result<(), Failure> {
    copying.to.publish(Message::new(body)).await?;
    copying.handled.one(MESSAGES - 1);
    Ok(())
}

/// Leaves it to be published with the ack.
async fn once(State(copying): State<Copying>, outbox: Outbox, body: Bytes) -> Result<(), Failure> {
    outbox.publish(&copying.to, Message::new(body))?;
    copying.handled.one(MESSAGES - 1);
    Ok(())
}

pub(super) fn run(kafka: &Kafka, rounds: usize) -> io::Result<Vec<Row>> {
    let topic = kafka.topic(4)?;
    kafka.block_on(publish_all(&kafka.publisher(&topic, WINDOW)?, MESSAGES, || body(16)))?;
    let copy = |exactly_once: bool| {
        let copying = Copying { to: kafka.publisher(&kafka.topic(4)?, WINDOW)?, handled: Handled::default() };
        let mut from = kafka.subscriber(&topic, &unique("group"))?;
        if !exactly_once {
            // Joining the group takes time that is no message's.
            drop(kafka.block_on(from.next()).map_err(io::Error::other)?.map(mainspring_pubsub::Delivery::ack));
        }
        Sample::of(|| {
            kafka.block_on(async {
                let (state, handled) = (copying.clone(), copying.handled.clone());
                // The stop is part of it: what is handled is not yet committed.
                let running = Running::start(from, |from| {
                    let router = match exactly_once {
                        true => Router::new().route("copy", from, once).exactly_once(),
                        false => Router::new().route("copy", from, twice_at_worst),
                    };
                    router.concurrency(AT_ONCE).with_state(state)
                });
                handled.all().await;
                running.stop().await.map(|()| MESSAGES)
            })
        })
    };
    Comparison::new("consume, produce, commit: 16 B, 1000 at once")
        .arm("kit, at least once", || copy(false))
        .arm("kit, exactly once", || copy(true))
        .run(rounds)
}
