//! Processes are killed, and others go on where they were.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::{Kafka, PATIENCE, assert_quiet, close, next, publish, text};
use mainspring_pubsub::ErrorKind;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::{Instant, sleep};

/// What the child is to read, and which message it is to be stuck with.
const URL: &str = "MAINSPRING_TEST_URL";
const STUCK: &str = "MAINSPRING_TEST_STUCK";

/// A group that notices within seconds that a member was killed.
const CLASSIC: &str = "protocol=classic&session_timeout=6s";

/// Not a test: what the children do. Says each message, then acks it.
#[tokio::test]
#[ignore = "run as a child process"]
async fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let stuck = std::env::var(STUCK).ok();
    let kafka = Kafka::up().unwrap();
    let mut subscriber = kafka.subscriber(&url).await;
    let mut held = Vec::new();
    loop {
        let delivery = subscriber.next().await.unwrap().unwrap();
        let text = text(&delivery);
        println!("handled {text}");
        std::io::stdout().flush().unwrap();
        if stuck.as_ref() == Some(&text) {
            held.push(delivery);
            continue;
        }
        delivery.ack().await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
}

struct Killed(Child);

impl Drop for Killed {
    /// SIGKILL: nothing is committed, nobody says goodbye.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a child; answers what it says it has handled.
fn start(url: &str, stuck: Option<&str>) -> (Killed, impl Iterator<Item = usize>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(URL, url);
    if let Some(stuck) = stuck {
        command.env(STUCK, stuck);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
    let handled = out.lines().map_while(Result::ok).filter_map(|line| line.rsplit_once("handled ")?.1.parse().ok());
    (Killed(child), handled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stuck_message_does_not_have_the_others_handled_again_after_a_kill() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    publish(&kafka.publisher(&topic).await, 2_000, 100).await;
    let url = format!("kafka://{topic}?group={topic}&{CLASSIC}");
    let (child, mut handled) = start(&url, Some("5"));
    assert!(handled.any(|number| number == 1_999), "the child gets to the last message");
    wait_for_note(&kafka, &topic, 1_999).await;
    drop(child);

    let mut subscriber = kafka.subscriber(&url).await;
    let again = next(&mut subscriber).await;
    assert_eq!(text(&again), "5");
    again.ack().await.unwrap();
    assert_quiet(&mut subscriber).await;
    close(subscriber).await;
    assert_eq!(committed(&kafka, &topic), (Some(2_000), String::new()));
}

#[tokio::test]
async fn notes_of_others_are_ignored() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    publish(&kafka.publisher(&topic).await, 10, 10).await;
    let other = consumer(&kafka, &topic);
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(&topic, 0);
    element.set_offset(Offset::Offset(3)).unwrap();
    element.set_metadata("ms1;2;BB and something else");
    other.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={topic}")).await;
    for number in 3..10 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(text(&delivery), number.to_string());
        delivery.ack().await.unwrap();
    }
    close(subscriber).await;
}

#[tokio::test]
async fn closing_and_dropping_commit_what_was_acked() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    publish(&kafka.publisher(&topic).await, 10, 10).await;
    let url = format!("kafka://{topic}?group={topic}");
    let mut subscriber = kafka.subscriber(&url).await;
    for _ in 0..5 {
        next(&mut subscriber).await.ack().await.unwrap();
    }
    close(subscriber).await;
    assert_eq!(committed(&kafka, &topic).0, Some(5));
    let mut subscriber = kafka.subscriber(&url).await;
    let out = next(&mut subscriber).await;
    assert_eq!(text(&out), "5");
    next(&mut subscriber).await.ack().await.unwrap();
    drop(subscriber);
    let end = Instant::now() + PATIENCE;
    // 5 was still out, 6 is noted as done.
    while committed(&kafka, &topic) != (Some(5), "ms1;5;BA".to_owned()) {
        assert!(Instant::now() < end, "{:?}", committed(&kafka, &topic));
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(out.ack().await.unwrap_err().kind(), ErrorKind::Lost);
}

/// A consumer of the topic's group that is no member. While the group has members, the broker takes no commit of it.
fn consumer(kafka: &Kafka, topic: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.address).set("group.id", topic);
    config.create().unwrap()
}

/// What the topic's group has committed of partition 0.
fn committed(kafka: &Kafka, topic: &str) -> (Option<i64>, String) {
    let consumer = consumer(kafka, topic);
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let list = consumer.committed_offsets(list, PATIENCE).unwrap();
    let elements = list.elements();
    let position = match elements[0].offset() {
        Offset::Offset(position) => Some(position),
        _ => None,
    };
    (position, elements[0].metadata().to_owned())
}

/// Waits until a done message up to `last` is noted beside the position.
async fn wait_for_note(kafka: &Kafka, topic: &str, last: i64) {
    let end = Instant::now() + PATIENCE;
    // Position 5, then one run: one away from it, up to `last`.
    let length = last - 6;
    let digits: Vec<_> = [length % 32 + 32, length / 32 % 32 + 32, length / 1024].into();
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits: String = digits.into_iter().map(|digit| char::from(alphabet[digit as usize])).collect();
    let wanted = (Some(5), format!("ms1;5;B{digits}"));
    while committed(kafka, topic) != wanted {
        assert!(Instant::now() < end, "{:?} is not {wanted:?}", committed(kafka, topic));
        sleep(Duration::from_millis(50)).await;
    }
}
