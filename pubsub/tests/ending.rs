//! A stop that races with the last message, on threads, many times over.

mod common;

use std::time::Duration;

use common::volatile_orders;
use mainspring_pubsub::{Failure, Message, Router, Text};
use tokio::time::{Instant, sleep};

/// Far more than a stop takes, and less than any deadline that would end the router anyway.
const SOON: Duration = Duration::from_secs(10);

async fn briefly(Text(_): Text) -> Result<(), Failure> {
    sleep(Duration::ZERO).await;
    Ok(())
}

#[test]
fn a_router_whose_queue_is_worked_off_ends_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for round in 0..2000 {
        runtime.block_on(async {
            let (_brokers, publisher, inbox) = volatile_orders().await;
            let mut router = common::start(Router::new().route("ship", inbox, briefly).concurrency(64));
            for id in 0..20 {
                publisher.publish(Message::new(id.to_string()).with_key(id.to_string())).await.unwrap();
            }
            let asked = Instant::now();
            router.request_stop(SOON * 2);
            router.requests_finished();
            router.ended().await.unwrap();
            assert!(asked.elapsed() < SOON, "round {round}");
            assert_eq!(router.tally("deliveries_settled"), 20, "round {round}");
        });
    }
}
