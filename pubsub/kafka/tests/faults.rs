//! Brokers that freeze, die, want a password, or are older.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::history::History;
use common::private::Private;
use common::{Kafka, PATIENCE, close, next, publish, publish_from, text};
use mainspring_pubsub::driver::{Opener, Publisher, Url};
use mainspring_pubsub::{BrokersConfig, ErrorKind, Message};
use mainspring_testing::Running;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(2);
/// So much that the client's own look at the clock will do.
const COARSE: Duration = Duration::from_secs(5);

fn config() -> BrokersConfig {
    let mut config = BrokersConfig::default();
    config.publish.timeout = TIMEOUT.into();
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_holds_nobody_beyond_the_deadline() {
    let Some(broker) = Private::start("") else { return };
    let kafka = Kafka::with(&broker.address, &config());
    let publisher = kafka.publisher("orders").await;
    publish(&publisher, 10, 10).await;
    let mut subscriber = kafka.subscriber("kafka://orders?group=g").await;
    let delivery = next(&mut subscriber).await;
    let mut opened = config();
    opened.kafka.brokers = vec![broker.address.clone()];
    let opener = mainspring_kafka::opener(&opened);
    let bare: Arc<dyn Publisher> = opener.publisher(&Url::parse("kafka://orders").unwrap()).await.unwrap().into();
    let mut coarse = config();
    coarse.publish.timeout = COARSE.into();
    let patient = Kafka::with(&broker.address, &coarse).publisher("orders").await;
    patient.publish(Message::new("warm")).await.unwrap();

    broker.freeze();
    let since = Instant::now();
    let error = publisher.publish(Message::new("frozen")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("may or may not"), "{error}");
    assert!((TIMEOUT..TIMEOUT * 2).contains(&since.elapsed()), "{:?}", since.elapsed());

    // Where the client looks at the clock, and not we.
    let since = Instant::now();
    let error = patient.publish(Message::new("frozen, too")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("may or may not"), "{error}");
    assert!((COARSE..COARSE + TIMEOUT * 2).contains(&since.elapsed()), "{:?}", since.elapsed());

    // What is given up at the flush's deadline is said to be unknown, not to have failed.
    let mut publishing = JoinSet::new();
    for n in 0..50 {
        let bare = Arc::clone(&bare);
        publishing.spawn(async move { bare.publish(Message::new(n.to_string()), Instant::now() + PATIENCE).await });
    }
    sleep(Duration::from_millis(200)).await;
    let since = Instant::now();
    let error = bare.flush(since + Duration::from_millis(500)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("50 messages"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    while let Some(published) = publishing.join_next().await {
        let error = published.unwrap().unwrap_err();
        let unknown = error.kind() == ErrorKind::Timeout && error.to_string().contains("may or may not");
        let unsent = error.kind() == ErrorKind::Unavailable && error.to_string().contains("is not published");
        assert!(unknown || unsent, "{error}");
    }

    delivery.ack().await.unwrap();
    let since = Instant::now();
    let error = subscriber.close(since + Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(since.elapsed() < Duration::from_millis(1500), "{:?}", since.elapsed());

    broker.thaw();
    let end = Instant::now() + PATIENCE;
    while let Err(error) = publisher.publish(Message::new("thawed")).await {
        assert!(error.is_retryable() && Instant::now() < end, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_down_is_told_of_and_used_again() {
    let Some(mut broker) = Private::start("") else { return };
    let kafka = Kafka::with(&broker.address, &config());
    let publisher = kafka.publisher("orders").await;
    publish(&publisher, 10, 10).await;
    let mut subscriber = kafka.subscriber("kafka://orders?group=g").await;
    for _ in 0..10 {
        next(&mut subscriber).await.ack().await.unwrap();
    }
    broker.kill();
    let error = timeout(PATIENCE, subscriber.next()).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
    assert!(error.to_string().contains("Connect"), "the cause is named: {error}");
    assert!(publisher.publish(Message::new("down")).await.unwrap_err().is_retryable());

    broker.restart();
    let end = Instant::now() + PATIENCE;
    while let Err(error) = publisher.publish(Message::new("up")).await {
        assert!(error.is_retryable() && Instant::now() < end, "{error}");
    }
    loop {
        match timeout(PATIENCE, subscriber.next()).await.unwrap() {
            Ok(delivery) => {
                let delivery = delivery.unwrap();
                let text = text(&delivery);
                delivery.ack().await.unwrap();
                // The one that was given up may have been written all the same, and so may those before a commit.
                if text == "up" {
                    break;
                }
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    close(subscriber).await;
}

#[tokio::test]
async fn older_brokers_get_classic_groups_and_passwords_are_checked() {
    let Some(broker) = Private::start("group.coordinator.rebalance.protocols=classic") else { return };
    let kafka = Kafka::with(&broker.address, &config());
    let url = format!("kafka://bob:s3cret@{}/orders", broker.guarded);
    let publisher = kafka.brokers.publisher(&url).await.unwrap();
    publish(&publisher, 3, 3).await;
    let mut subscriber = kafka.subscriber(&format!("{url}?group=g")).await;
    for number in 0..3 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(text(&delivery), number.to_string());
        delivery.ack().await.unwrap();
    }
    close(subscriber).await;

    let wrong = format!("kafka://bob:guessed@{}/orders", broker.guarded);
    let error = kafka.brokers.publisher(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(!format!("{error:?}").contains("guessed"), "{error:?}");
    let error =
        kafka.brokers.subscriber(&format!("kafka://{}/orders?group=g&grace=2s", broker.guarded)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // Asked for by name, the new protocol is not replaced.
    let url = "kafka://orders?group=other&protocol=consumer";
    let mut subscriber = kafka.subscriber(url).await;
    let error = timeout(PATIENCE, subscriber.next()).await.unwrap().unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    println!("{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_refused_for_a_while_is_named_and_everything_goes_on_when_it_is_right_again() {
    let Some(mut broker) = Private::start("") else { return };
    let kafka = Kafka::with(&broker.address, &config());
    kafka.brokers.create_topic("kafka://orders").await.unwrap();
    let url = format!("kafka://bob:s3cret@{}/orders", broker.guarded);
    let publisher = kafka.brokers.publisher(&url).await.unwrap();
    let history = History::default();
    let mut running = Running::start(history.router("orders", kafka.subscriber(&format!("{url}?group=g")).await));
    publish(&publisher, 50, 10).await;
    history.wait_for(50).await;

    // Somebody else has changed it; others get on.
    broker.kill();
    broker.change_password("s3cret", "changed");
    broker.restart();
    let why = until(&running, |unready| unready.contains("uthentication failed")).await;
    assert!(!why.contains("s3cret"), "{why}");
    publish_from(&kafka.publisher("orders").await, 50, 50, 10).await;
    let error = publisher.publish(Message::new("refused")).await.unwrap_err();
    assert!(error.is_retryable() || error.kind() == ErrorKind::PermissionDenied, "{error:?}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    assert!(running.ended(Duration::ZERO).await.is_none(), "a route that may go on has ended");
    assert_eq!(history.distinct(), 50, "handled without a password");

    // Now it is what it was.
    broker.kill();
    broker.change_password("changed", "s3cret");
    broker.restart();
    until(&running, str::is_empty).await;
    history.wait_for(100).await;
    publish_from(&publisher, 100, 50, 10).await;
    history.wait_for(150).await;
    running.stop().await;
}

/// Waits until what readiness is held back by is as it should be, and answers it.
async fn until(running: &Running, is_right: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let unready = running.context().board().unready();
        let unready = if unready.is_empty() { String::new() } else { format!("{unready:?}") };
        if is_right(&unready) {
            return unready;
        }
        assert!(Instant::now() < end, "{unready:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
