//! Routes that are paused, drained, added and removed while they run.

mod common;

use std::time::Duration;

use common::history::{CONCURRENCY, History};
use common::{Kafka, PATIENCE, publish, publish_from};
use mainspring_observe::metrics;
use mainspring_pubsub::RouteState;
use mainspring_testing::Running;
use tokio::time::{Instant, sleep, timeout};

const KEYS: usize = 200;

/// The client is removed from its group when nobody has polled it for that long.
const POLL: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_is_paused_for_long_keeps_its_partitions_and_goes_on() {
    pause("protocol=consumer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_does_in_a_classic_group() {
    pause("protocol=classic&session_timeout=6s").await;
}

async fn pause(protocol: &str) {
    const MESSAGES: usize = 3_000;
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(4).await;
    publish(&kafka.publisher(&topic).await, MESSAGES, KEYS).await;
    let options = format!("{protocol}&drain=1s&rebalance_timeout={}s", POLL.as_secs());
    let history = History::default();
    let inbox = kafka.subscriber(&format!("kafka://{topic}?group={topic}&{options}")).await;
    let router = history.router("orders", inbox);
    let handle = router.handle();
    let running = Running::start(router);
    history.wait_for(300).await;

    handle.pause("orders").unwrap();
    let (handled, assigned) = (history.distinct(), moves(&topic));
    assert!(assigned.is_some(), "the metric is there");
    sleep(POLL * 2).await;
    assert!(history.distinct() <= handled + CONCURRENCY, "{} were begun in a pause", history.distinct() - handled);
    assert_eq!(moves(&topic), assigned, "partitions came or went");
    assert!(running.context().board().unready().is_empty(), "{:?}", running.context().board().unready());

    handle.resume("orders").unwrap();
    history.wait_for(MESSAGES).await;
    running.stop().await;
    assert_eq!(history.duplicates(), 0);
    history.assert_ordered(KEYS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drained_route_leaves_is_handled_by_the_other_instance() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(8).await;
    let publisher = kafka.publisher(&topic).await;
    publish(&publisher, 2_000, KEYS).await;
    let url = format!("kafka://{topic}?group={topic}");
    let history = History::default();
    let router = history.router("orders", kafka.subscriber(&url).await);
    let handle = router.handle();
    let mut drained = Running::start(router);
    history.wait_for(300).await;
    let other = history.member(kafka.subscriber(&url).await);
    history.wait_for(2_000).await;

    publish_from(&publisher, 2_000, 2_000, KEYS).await;
    handle.drain("orders").unwrap();
    // With its last route, the router ends.
    let ended = drained.ended(PATIENCE).await.expect("draining comes to an end");
    ended.unwrap();
    assert_eq!(handle.state("orders"), Some(RouteState::Ended));
    history.wait_for(4_000).await;
    other.stop().await;
    assert_eq!(history.duplicates(), 0);
    history.assert_ordered(KEYS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_is_added_removed_and_added_again_handles_everything_once() {
    const MESSAGES: usize = 1_500;
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(4).await;
    let publisher = kafka.publisher(&topic).await;
    publish(&publisher, MESSAGES, KEYS).await;
    let (ship, audit) = (format!("kafka://{topic}?group={topic}-ship"), format!("kafka://{topic}?group={topic}-audit"));
    let (shipped, audited) = (History::default(), History::default());
    let router = shipped.router("ship", kafka.subscriber(&ship).await);
    let handle = router.handle();
    let running = Running::start(router);
    shipped.wait_for(300).await;

    let add = async || handle.add(audited.router("audit", kafka.subscriber(&audit).await)).await.unwrap();
    add().await;
    audited.wait_for(300).await;
    until_ready(&running).await;
    timeout(PATIENCE, handle.remove("audit")).await.expect("it ends in time").unwrap();
    assert_eq!(handle.routes(), [("ship", RouteState::Running)]);
    let before = audited.distinct();

    // The one goes on, the other does nothing more.
    publish_from(&publisher, MESSAGES, MESSAGES, KEYS).await;
    shipped.wait_for(MESSAGES * 2).await;
    assert_eq!(audited.distinct(), before);

    add().await;
    audited.wait_for(MESSAGES * 2).await;
    running.stop().await;
    for history in [shipped, audited] {
        assert_eq!(history.duplicates(), 0);
        history.assert_ordered(KEYS);
    }
}

async fn until_ready(running: &Running) {
    let end = Instant::now() + PATIENCE;
    while !running.context().board().unready().is_empty() {
        assert!(Instant::now() < end, "{:?}", running.context().board().unready());
        sleep(Duration::from_millis(20)).await;
    }
}

/// How often partitions of the topic came or went.
fn moves(topic: &str) -> Option<String> {
    let text = metrics::text(&[metrics::registry()]);
    let line = text.lines().find(|line| line.starts_with("pubsub_rebalances_total{") && line.contains(topic))?;
    Some(line.rsplit_once(' ').unwrap().1.to_owned())
}
