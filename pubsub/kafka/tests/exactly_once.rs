//! Outputs of routers that are exactly once, read by somebody who reads only what is committed.

mod common;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::private::Private;
use common::{Kafka, publish, unique};
use mainspring_daemon::{Context, Trigger};
use mainspring_observe::metrics;
use mainspring_pubsub::{Backoff, Error, ErrorKind, Failure, Message, Outbox, Policy, Publisher, Router, State, Text};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Where the child reads, and where what it makes of it goes.
const FROM: &str = "MAINSPRING_TEST_FROM";
const TO: &str = "MAINSPRING_TEST_TO";

/// Thousands of messages, members that are killed and noticed seconds later, and a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(180);

/// A group that notices within seconds that a member was killed.
const CLASSIC: &str = "protocol=classic&session_timeout=6s";

/// Leaves its message for the next, unless it fails or panics, as it does often, at any time.
async fn pass_on(Text(text): Text, State(to): State<Publisher>, outbox: Outbox) -> Result<(), Failure> {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let number: usize = text.parse()?;
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    sleep(Duration::from_millis((number as u64 * 7919 + call as u64) % 8)).await;
    outbox.publish(&to, Message::new(text).with_key(format!("key-{}", number % 50)))?;
    assert!(call % 17 != 3, "a handler that panics now and then");
    if call % 11 == 5 { Err(Failure::retry("a handler that fails now and then")) } else { Ok(()) }
}

async fn router(kafka: &Kafka, from: &str, to: &str) -> Router<()> {
    let to = kafka.publisher(to).await;
    let inbox = kafka.subscriber(from).await;
    let backoff = Backoff::fixed(Duration::from_millis(5));
    let policy = Policy::default().attempts(1000).backoff(backoff);
    Router::new().route("pass_on", inbox, pass_on).with_state(to).policy(policy).concurrency(32).exactly_once()
}

/// A router at work.
struct Member {
    trigger: Trigger,
    running: JoinSet<Result<(), Error>>,
}

impl Member {
    fn start(router: Router<()>) -> Self {
        let (trigger, cx) = Context::test("member");
        let mut running = JoinSet::new();
        running.spawn(router.run(cx));
        Self { trigger, running }
    }

    async fn stop(mut self) {
        self.trigger.request(Instant::now() + PATIENCE);
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }

    async fn error(&mut self) -> Error {
        timeout(PATIENCE, self.running.join_next()).await.unwrap().unwrap().unwrap().unwrap_err()
    }
}

/// Reads a topic from its beginning, as far as it is committed, until `count` different numbers were seen and nothing
/// more comes. Each has to be there once, and those of a key in order.
async fn assert_exactly_once(address: &str, topic: &str, partitions: i32, count: usize) {
    let (address, topic) = (address.to_owned(), topic.to_owned());
    let read = tokio::task::spawn_blocking(move || read(&address, &topic, partitions, count));
    let seen = read.await.unwrap();
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).take(10).collect();
    assert!(twice.is_empty(), "more than once: {twice:?}");
    assert_eq!(seen.len(), count, "lost");
}

fn read(address: &str, topic: &str, partitions: i32, count: usize) -> BTreeMap<usize, usize> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", unique("reader")).set("enable.auto.commit", "false");
    let reader: BaseConsumer = config.set("isolation.level", "read_committed").create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    reader.assign(&list).unwrap();
    drop(list);
    let mut seen = BTreeMap::new();
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    let end = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < end {
        // Once all are there, what came twice would come soon.
        let patience = if seen.len() < count { Duration::from_millis(500) } else { Duration::from_secs(2) };
        match reader.poll(patience) {
            Some(Ok(record)) => {
                let number: usize = std::str::from_utf8(record.payload().unwrap()).unwrap().parse().unwrap();
                *seen.entry(number).or_insert(0) += 1;
                let before = last.insert(number % 50, number);
                assert!(before.is_none_or(|before| before < number), "{number} came after {before:?}");
            }
            Some(Err(error)) => println!("reading: {error}"),
            None if seen.len() >= count => break,
            None => {}
        }
    }
    seen
}

/// Not a test: what the children do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run as a child process"]
async fn child() {
    let (Ok(from), Ok(to)) = (std::env::var(FROM), std::env::var(TO)) else { return };
    let kafka = Kafka::up().unwrap();
    let (_trigger, cx) = Context::test("child");
    router(&kafka, &from, &to).await.run(cx).await.unwrap();
}

struct Killed(Child);

impl Drop for Killed {
    /// SIGKILL: nothing is committed, nobody says goodbye.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(from: &str, to: &str) -> Killed {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(FROM, from).env(TO, to);
    Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_publish_each_output_once() {
    let Some(kafka) = Kafka::up() else { return };
    let (from, to) = (kafka.topic(4).await, kafka.topic(3).await);
    publish(&kafka.publisher(&from).await, 4_000, 50).await;
    let url = |instance| format!("kafka://{from}?group={from}&{CLASSIC}&instance={instance}");
    let mut members = [start(&url("a"), &to), start(&url("b"), &to)];
    for life in 0..6 {
        // At another point of its work each time: begun, in the middle of a transaction, waiting for its partitions.
        sleep(Duration::from_millis(700 + 450 * life)).await;
        let (at, instance) = if life % 2 == 0 { (0, "a") } else { (1, "b") };
        members[at] = start(&url(instance), &to);
    }
    assert_exactly_once(&kafka.address, &to, 3, 4_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_come_and_go_publish_each_output_once() {
    let Some(kafka) = Kafka::up() else { return };
    for protocol in ["consumer", "classic"] {
        let (from, to) = (kafka.topic(4).await, kafka.topic(2).await);
        publish(&kafka.publisher(&from).await, 3_000, 50).await;
        let url = format!("kafka://{from}?group={from}&protocol={protocol}");
        let first = Member::start(router(&kafka, &url, &to).await);
        for pause in [300, 100, 700, 200] {
            let other = Member::start(router(&kafka, &url, &to).await);
            sleep(Duration::from_millis(pause)).await;
            other.stop().await;
        }
        assert_exactly_once(&kafka.address, &to, 2, 3_000).await;
        first.stop().await;
        // They are told of, too: all members of this process count in one place.
        assert_eq!(metric("pubsub_transaction_messages_total", &from, ""), 3_000);
        assert!(metric("pubsub_transaction_duration_seconds_count", &from, "outcome=\"committed\"") > 0);
    }
}

/// What a metric of the topic has come to.
fn metric(name: &str, topic: &str, label: &str) -> u64 {
    let text = metrics::text(&[metrics::registry()]);
    let mut lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(topic));
    let line = lines.find(|line| line.contains(label)).unwrap_or_else(|| panic!("no {name}: {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_in_the_middle_has_each_output_once() {
    let settings = "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
                    transaction.state.log.num.partitions=1";
    let Some(mut broker) = Private::start(settings) else { return };
    let kafka = Kafka::at(&broker.address);
    let (from, to) = (kafka.topic(2).await, kafka.topic(1).await);
    publish(&kafka.publisher(&from).await, 2_000, 50).await;
    let member = Member::start(router(&kafka, &format!("kafka://{from}?group={from}"), &to).await);
    sleep(Duration::from_secs(2)).await;
    broker.kill();
    broker.restart();
    assert_exactly_once(&broker.address, &to, 1, 2_000).await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_one_name_are_told_so() {
    let Some(kafka) = Kafka::up() else { return };
    let (from, to) = (kafka.topic(2).await, kafka.topic(1).await);
    let inbox = kafka.publisher(&from).await;
    let url = format!("kafka://{from}?group={from}&instance=same");
    // Each has names of its own, as processes have.
    let mut one = Member::start(router(&Kafka::at(&kafka.address), &url, &to).await);
    let mut two = Member::start(router(&Kafka::at(&kafka.address), &url, &to).await);
    let publishing = async {
        for number in 0..PATIENCE.as_millis() as usize / 20 {
            inbox.publish(Message::new(number.to_string())).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody was told");
    };
    let error = tokio::select! {
        error = one.error() => error,
        error = two.error() => error,
        () = publishing => unreachable!(),
    };
    assert!(!error.is_retryable() && error.to_string().contains("`instance=` of its own"), "{error}");
}

#[tokio::test]
async fn what_the_broker_refuses_for_good_ends_the_route_and_is_named() {
    let Some(kafka) = Kafka::up() else { return };
    let (from, small) = (kafka.topic(1).await, unique("small"));
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &kafka.address).create().unwrap();
    let new = NewTopic::new(&small, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "1000");
    assert!(admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].is_ok());
    let to = kafka.publisher(&small).await;
    let handler = move |outbox: Outbox| {
        let left =
            outbox.publish(&to, Message::new((0..8000_u32).flat_map(|n| (n * n).to_le_bytes()).collect::<Vec<_>>()));
        async move { Ok(left?) }
    };
    let inbox = kafka.subscriber(&format!("kafka://{from}?group={from}")).await;
    let mut member = Member::start(Router::new().route("big", inbox, handler).exactly_once());
    kafka.publisher(&from).await.publish(Message::new("1")).await.unwrap();
    let error = member.error().await;
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::TooLarge, false), "{error}");
}
