//! What brokers answer, code by code, from one inside the process that says what it is told to.

mod common;

use std::error::Error as _;
use std::time::Duration;

use common::{Kafka, PATIENCE, close, next, publish, text};
use mainspring_pubsub::{BrokersConfig, ErrorKind, Failure, Message, Router};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Answer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

const TOPIC: &str = "orders";
const TIMEOUT: Duration = Duration::from_secs(3);

type Mock = MockCluster<'static, DefaultProducerContext>;

fn mock() -> (Mock, Kafka) {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(TOPIC, 1, 1).unwrap();
    let mut config = BrokersConfig::default();
    config.publish.timeout = TIMEOUT.into();
    let kafka = Kafka::with(&mock.bootstrap_servers(), &config);
    (mock, kafka)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_pass_are_waited_out() {
    let (mock, kafka) = mock();
    let publisher = kafka.publisher(TOPIC).await;
    for answer in [
        Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Answer::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Answer::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    ] {
        mock.request_errors(Api::Produce, &[answer]);
        publisher.publish(Message::new("passes")).await.unwrap_or_else(|error| panic!("{answer:?}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_stay_have_a_kind_and_say_what_became_of_the_message() {
    let (mock, kafka) = mock();
    for (answer, kind, retryable) in [
        (Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ErrorKind::TooLarge, false),
        (Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ErrorKind::PermissionDenied, false),
        (Answer::RD_KAFKA_RESP_ERR_INVALID_RECORD, ErrorKind::Invalid, false),
        (Answer::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, ErrorKind::Invalid, false),
        (Answer::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, ErrorKind::Invalid, false),
        (Answer::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT, ErrorKind::Unsupported, false),
    ] {
        let publisher = kafka.publisher(TOPIC).await;
        mock.request_errors(Api::Produce, &[answer]);
        let error = publisher.publish(Message::new("stays")).await.unwrap_err();
        let cause = error.source().and_then(|cause| cause.downcast_ref::<KafkaError>());
        assert!(matches!(cause, Some(KafkaError::MessageProduction(_))), "{error:?}");
        assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{answer:?}: {error}");
        mock.clear_request_errors(Api::Produce);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_leave_it_open_say_so() {
    let (mock, kafka) = mock();
    for answer in
        [Answer::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION, Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND]
    {
        let publisher = kafka.publisher(TOPIC).await;
        mock.request_errors(Api::Produce, &[answer; 1_000]);
        let error = publisher.publish(Message::new("who knows")).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true), "{answer:?}: {error}");
        assert!(error.to_string().contains("may or may not"), "{answer:?}: {error}");
        mock.clear_request_errors(Api::Produce);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_all_the_time_end_at_the_deadline() {
    let (mock, kafka) = mock();
    let publisher = kafka.publisher(TOPIC).await;
    mock.request_errors(Api::Produce, &[Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1_000]);
    let since = Instant::now();
    let error = publisher.publish(Message::new("never")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true), "{error}");
    assert!(since.elapsed() < TIMEOUT * 2, "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_failed_for_good_is_replaced() {
    let (mock, kafka) = mock();
    let publisher = kafka.publisher(TOPIC).await;
    publish(&publisher, 10, 10).await;
    mock.request_errors(Api::Produce, &[Answer::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let error = publisher.publish(Message::new("lost track")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true), "{error}");
    assert!(error.to_string().contains("may or may not"), "{error}");
    let end = Instant::now() + PATIENCE;
    while let Err(error) = publisher.publish(Message::new("again")).await {
        assert!(error.is_retryable() && Instant::now() < end, "{error}");
    }
    publish(&publisher, 10, 10).await;
    publisher.flush(Instant::now() + PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_and_fetches_that_fail_for_a_while_lose_nothing() {
    let (mock, kafka) = mock();
    publish(&kafka.publisher(TOPIC).await, 20, 20).await;
    // No classic group: of those, the mock loses a member now and then while its coordinator is looked for.
    let url = format!("kafka://{TOPIC}?group=g");
    for answer in [Answer::RD_KAFKA_RESP_ERR_NOT_COORDINATOR, Answer::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS] {
        mock.request_errors(Api::OffsetCommit, &[answer]);
    }
    mock.request_errors(Api::Fetch, &[Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 3]);
    let mut subscriber = kafka.subscriber(&url).await;
    for number in 0..10 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(text(&delivery), number.to_string());
        delivery.ack().await.unwrap();
    }
    close(subscriber).await;
    let mut subscriber = kafka.subscriber(&url).await;
    let delivery = next(&mut subscriber).await;
    assert_eq!(text(&delivery), "10", "what was acked before the close was committed");
    close(subscriber).await;
}

/// Nothing closes here, and no partition moves: it is the commit once a second that is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_are_refused_meanwhile_are_made_again_and_without_notes_where_those_are_too_large() {
    for answer in
        [Answer::RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE, Answer::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE]
    {
        let (mock, kafka) = mock();
        publish(&kafka.publisher(TOPIC).await, 20, 20).await;
        mock.request_errors(Api::OffsetCommit, &[answer]);
        let url = format!("kafka://{TOPIC}?group=g&protocol=classic&session_timeout=6s");
        let mut subscriber = kafka.subscriber(&url).await;
        let mut held = Vec::new();
        for number in 0..10 {
            let delivery = next(&mut subscriber).await;
            match number {
                5 => held.push(delivery),
                _ => delivery.ack().await.unwrap(),
            }
        }
        let address = mock.bootstrap_servers();
        let end = Instant::now() + PATIENCE;
        while committed(&address).await != Offset::Offset(5) {
            assert!(Instant::now() < end, "{answer:?}: {:?}", committed(&address).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(held);
        close(subscriber).await;
    }
}

/// Where the group is, as the broker has it.
async fn committed(address: &str) -> Offset {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", "g");
    let asked = spawn_blocking(move || {
        let client: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(TOPIC, 0);
        client.committed_offsets(list, PATIENCE).unwrap().elements()[0].offset()
    });
    asked.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_and_not_committed_is_told_of_at_the_close() {
    let (mock, kafka) = mock();
    publish(&kafka.publisher(TOPIC).await, 1, 1).await;
    let url = format!("kafka://{TOPIC}?group=uncommitted&protocol=classic&session_timeout=6s");
    let mut subscriber = kafka.subscriber(&url).await;
    mock.request_errors(Api::OffsetCommit, &[Answer::RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE; 1000]);
    next(&mut subscriber).await.ack().await.unwrap();
    let error = subscriber.close(Instant::now() + PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("may be handled again"), "{error}");
    let cause = error.source().and_then(|cause| cause.source()).unwrap();
    let Some(KafkaError::ConsumerCommit(code)) = cause.downcast_ref() else { panic!("{cause:?}") };
    assert_eq!(*code, RDKafkaErrorCode::InvalidCommitOffsetSize);
    let metrics = mainspring_observe::metrics::text(&[mainspring_observe::metrics::registry()]);
    let counted = ["pubsub_settle_failures_total{", r#"group_name="uncommitted""#, r#"error_type="other""#];
    assert!(metrics.lines().any(|line| counted.iter().all(|part| line.contains(part))), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_forbidden_ends_the_subscriber_with_that_cause() {
    let (mock, kafka) = mock();
    publish(&kafka.publisher(TOPIC).await, 1, 1).await;
    mock.request_errors(Api::JoinGroup, &[Answer::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 100]);
    let url = format!("kafka://{TOPIC}?group=g&protocol=classic&session_timeout=6s");
    let mut subscriber = kafka.subscriber(&url).await;
    let error = tokio::time::timeout(PATIENCE, subscriber.next()).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::PermissionDenied, false), "{error}");
}

/// It is the cluster's controller that makes topics, and here there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_finds_the_topic_for_dead_letters_has_none_made() {
    let (mock, kafka) = mock();
    mock.create_topic(&format!("{TOPIC}.dead"), 1, 1).unwrap();
    publish(&kafka.publisher(TOPIC).await, 1, 1).await;
    let subscriber = kafka.subscriber(&format!("kafka://{TOPIC}?group=g&grace=3m")).await;
    let (handled, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |message: Message| std::future::ready(handled.send(message).map_err(Failure::reject));
    let running = mainspring_testing::Running::start(Router::new().route("one", subscriber, handler));
    tokio::time::timeout(PATIENCE, seen.recv()).await.expect("it does not wait for a controller").unwrap();
    running.stop().await;
}
