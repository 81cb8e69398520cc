//! Static members, for whom the group keeps their partitions.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Kafka, PATIENCE, close, next, publish_from, text};
use mainspring_pubsub::{Delivery, Subscriber};
use tokio::time::{Instant, timeout};

const PARTITIONS: u32 = 2;

/// What comes until nothing has come for a while: the numbers, and the partitions that they stood in.
async fn drain(subscriber: &mut Subscriber) -> (BTreeSet<String>, BTreeSet<u32>) {
    let (mut numbers, mut partitions) = (BTreeSet::new(), BTreeSet::new());
    while let Ok(delivery) = timeout(Duration::from_millis(1500), subscriber.next()).await {
        let delivery = delivery.unwrap().unwrap();
        numbers.insert(text(&delivery));
        partitions.insert(partition(&delivery));
        delivery.ack().await.unwrap();
    }
    (numbers, partitions)
}

fn partition(delivery: &Delivery) -> u32 {
    delivery.position().unwrap().partition
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_a_static_member_wait_for_it() {
    let Some(kafka) = Kafka::up() else { return };
    for protocol in ["classic", "consumer"] {
        let topic = kafka.topic(PARTITIONS as i32).await;
        let url = |instance: &str| {
            format!("kafka://{topic}?group={topic}&protocol={protocol}&membership=static&instance={instance}")
        };
        let publisher = kafka.publisher(&topic).await;
        let (mut goes, mut stays) = (kafka.subscriber(&url("a")).await, kafka.subscriber(&url("b")).await);
        // Until both have a partition, one may have them all.
        let (mut published, end) = (0, Instant::now() + PATIENCE);
        let (left, kept) = loop {
            assert!(Instant::now() < end, "{protocol}: each gets a partition");
            publish_from(&publisher, published, 20, 20).await;
            published += 20;
            let ((_, left), (_, kept)) = tokio::join!(drain(&mut goes), drain(&mut stays));
            if (left.len(), kept.len()) == (1, 1) {
                break (left, kept);
            }
        };
        close(goes).await;
        publish_from(&publisher, published, 20, 20).await;
        let (seen, partitions) = drain(&mut stays).await;
        assert_eq!(partitions, kept, "{protocol}: nobody takes over");

        let mut back = kafka.subscriber(&url("a")).await;
        let first = next(&mut back).await;
        assert!(left.contains(&partition(&first)) && !seen.contains(&text(&first)), "{protocol}: {first:?}");
        first.ack().await.unwrap();
        let (rest, _) = drain(&mut back).await;
        assert_eq!(seen.len() + 1 + rest.len(), 20, "{protocol}");
        close(back).await;
        close(stays).await;
    }
}
