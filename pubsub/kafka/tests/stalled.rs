//! Handlers that do not get on, for longer than a client may be silent.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Kafka, PATIENCE, resident};
use mainspring_config::ByteSize;
use mainspring_observe::metrics;
use mainspring_pubsub::{Failure, Message, Router};
use mainspring_testing::Running;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

const MESSAGES: usize = 1_200;
const BODY: usize = 100_000;
const CONCURRENCY: usize = 8;
const CAP: u64 = 16 << 20;

/// The client is removed from its group when nobody has polled it for that long.
const POLL: Duration = Duration::from_secs(10);

static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_all_stall_keep_their_partitions_and_hold_no_more_than_they_may() {
    stall("protocol=consumer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_they_do_in_a_classic_group() {
    stall("protocol=classic&session_timeout=6s").await;
}

async fn stall(protocol: &str) {
    let Some(kafka) = Kafka::up() else { return };
    // One after the other: each looks at how much memory the whole process has.
    let _alone = ALONE.lock().await;
    let topic = kafka.topic(2).await;
    let publisher = kafka.brokers.publisher(&format!("kafka://{topic}?compression=none")).await.unwrap();
    for part in 0..MESSAGES / 100 {
        let message = |n: usize| Message::new(vec![b'x'; BODY]).with_key(format!("{part}-{n}"));
        for result in publisher.publish_all((0..100).map(message).collect()).await {
            result.unwrap();
        }
    }
    drop(publisher);

    let (began, mut log) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let handler = move |message: Message| {
        let (began, gate) = (began.clone(), Arc::clone(&gate));
        async move {
            began.send(message.id).ok();
            drop(gate.acquire().await?);
            Ok::<_, Failure>(())
        }
    };
    let options = format!("{protocol}&rebalance_timeout={}s", POLL.as_secs());
    let inbox = kafka.subscriber(&format!("kafka://{topic}?group={topic}&{options}")).await;
    let policy = mainspring_pubsub::Policy::default().timeout(PATIENCE * 5);
    let router = Router::new().route("stalled", inbox, handler).policy(policy).concurrency(CONCURRENCY);
    let before = resident();
    let running = Running::start(router.prefetch(MESSAGES).max_bytes(ByteSize::bytes(CAP)));
    for _ in 0..CONCURRENCY {
        timeout(PATIENCE, log.recv()).await.unwrap().unwrap();
    }
    let assigned = moves(&topic);
    assert!(assigned.is_some(), "the metric is there");
    sleep(POLL * 2).await;
    let grown = resident().saturating_sub(before) as u64;
    println!("{} KiB grown while {CAP} bytes may be held", grown >> 10);
    assert!(grown <= CAP + (32 << 20), "{} KiB", grown >> 10);
    assert!(log.is_empty(), "more handlers run than may");
    assert_eq!(moves(&topic), assigned, "partitions came or went");

    // Still in the group: what was held is settled, and nothing comes twice.
    open.add_permits(MESSAGES);
    for _ in CONCURRENCY..MESSAGES {
        timeout(PATIENCE, log.recv()).await.unwrap().unwrap();
    }
    running.stop().await;
    assert!(log.is_empty(), "messages came twice");
}

/// How often partitions of the topic came or went.
fn moves(topic: &str) -> Option<String> {
    let text = metrics::text(&[metrics::registry()]);
    let line = text.lines().find(|line| line.starts_with("pubsub_rebalances_total{") && line.contains(topic))?;
    Some(line.rsplit_once(' ').unwrap().1.to_owned())
}
