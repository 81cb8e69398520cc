//! When a route on Kafka is ready, and what it says when it is not.

mod common;

use std::time::Duration;

use common::{Kafka, PATIENCE, publish};
use mainspring_daemon::{Context, Trigger};
use mainspring_pubsub::{Error, Message, Router};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Answer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const PROTOCOLS: [&str; 2] = ["classic", "consumer"];

/// A router with one route.
struct Route {
    cx: Context,
    trigger: Trigger,
    running: JoinSet<Result<(), Error>>,
    handled: mpsc::UnboundedReceiver<()>,
}

impl Route {
    async fn start(kafka: &Kafka, url: &str) -> Self {
        let (sender, handled) = mpsc::unbounded_channel();
        let handler = move |_: Message| {
            sender.send(()).unwrap();
            async { Ok(()) }
        };
        let router = Router::new().route("ship", kafka.subscriber(url).await, handler);
        let (trigger, cx) = Context::test("ship");
        let mut running = JoinSet::new();
        running.spawn(router.run(cx.clone()));
        Self { cx, trigger, running, handled }
    }

    /// Waits until what holds readiness back contains `expected`; without it, until nothing does.
    async fn until(&self, expected: Option<&str>) {
        let reached = async {
            loop {
                let unready = self.cx.board().unready();
                match expected {
                    Some(expected) if unready.iter().any(|(_, why)| why.contains(expected)) => break,
                    None if unready.is_empty() => break,
                    _ => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{:?}, and not {expected:?}", self.cx.board().unready());
    }

    async fn stop(mut self) {
        self.trigger.request(Instant::now() + PATIENCE);
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_is_not_ready_before_its_group_has_let_it_in() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("orders", 1, 1).unwrap();
    let kafka = Kafka::at(&mock.bootstrap_servers());
    mock.request_errors(Api::JoinGroup, &[Answer::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 1000]);
    let route = Route::start(&kafka, "kafka://orders?group=g&protocol=classic&session_timeout=6s").await;
    route.until(Some("route `ship` does not receive yet: not yet a member of the group `g`")).await;
    mock.clear_request_errors(Api::JoinGroup);
    route.until(None).await;
    route.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_gets_no_partition_is_ready_all_the_same() {
    let Some(kafka) = Kafka::up() else { return };
    for protocol in PROTOCOLS {
        let topic = kafka.topic(1).await;
        let url = format!("kafka://{topic}?group={topic}&protocol={protocol}");
        let (first, second) = (Route::start(&kafka, &url).await, Route::start(&kafka, &url).await);
        first.until(None).await;
        second.until(None).await;
        second.stop().await;
        first.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_gone_is_told_of_and_read_again_when_it_is_back() {
    let Some(kafka) = Kafka::up() else { return };
    for protocol in PROTOCOLS {
        let topic = kafka.topic(1).await;
        let url = format!("kafka://{topic}?group={topic}&protocol={protocol}");
        let mut route = Route::start(&kafka, &url).await;
        publish(&kafka.publisher(&topic).await, 1, 1).await;
        timeout(PATIENCE, route.handled.recv()).await.expect("it is handled");
        route.until(None).await;

        kafka.brokers.delete_topic(&format!("kafka://{topic}")).await.unwrap();
        route.until(Some(&format!("route `ship` cannot receive: kafka: receive: topic `{topic}`"))).await;

        kafka.make(&topic, 1).await;
        route.until(None).await;
        publish(&kafka.publisher(&topic).await, 1, 1).await;
        timeout(PATIENCE, route.handled.recv()).await.expect("it is handled");
        route.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_lasts_is_told_of_until_messages_come() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("orders", 1, 1).unwrap();
    let kafka = Kafka::at(&mock.bootstrap_servers());
    let mut route = Route::start(&kafka, "kafka://orders?group=g&protocol=classic&session_timeout=6s").await;
    route.until(None).await;
    mock.request_errors(Api::Fetch, &[Answer::RD_KAFKA_RESP_ERR_UNKNOWN; 1000]);
    publish(&kafka.publisher("orders").await, 1, 1).await;
    route.until(Some("route `ship` cannot receive: kafka: receive: partition 0: ")).await;
    mock.clear_request_errors(Api::Fetch);
    timeout(PATIENCE, route.handled.recv()).await.expect("it is handled");
    route.until(None).await;
    route.stop().await;
}
