//! What a router gives up goes to a topic beside its source.

mod common;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use common::{Kafka, close, next, publish, text, unique};
use mainspring_daemon::{Context, PageRequest};
use mainspring_observe::metrics;
use mainspring_pubsub::{Backoff, Brokers, Error, ErrorKind, Failure, Message, Policy, Router, Text};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

async fn refuse_odd(Text(number): Text) -> Result<(), Failure> {
    if number.parse::<u32>()? % 2 == 1 { Err(Failure::reject("odd")) } else { Ok(()) }
}

async fn run(brokers: &Brokers, url: &str) -> (mainspring_daemon::Trigger, Context, JoinSet<Result<(), Error>>) {
    let router = Router::new().route("even", brokers.subscriber(url).await.unwrap(), refuse_odd);
    let (trigger, cx) = Context::test("even");
    let mut tasks = JoinSet::new();
    tasks.spawn(router.run(cx.clone()));
    (trigger, cx, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_messages_go_to_a_topic_that_is_made_for_them() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(2).await;
    let url = format!("kafka://{topic}?group={}", unique("even"));
    publish(&kafka.publisher(&topic).await, 10, 5).await;
    // Twice, so that the second finds the topic made.
    for _ in 0..2 {
        let (trigger, cx, mut tasks) = run(&kafka.brokers, &url).await;
        let settled = cx.tally("deliveries_settled");
        let done = timeout(common::PATIENCE, async {
            while settled.get() < 10 {
                sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        done.await.expect("all are settled, and no rejected one comes again");
        trigger.request(Instant::now() + common::PATIENCE);
        tasks.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(settled.get(), 10);
        publish(&kafka.publisher(&topic).await, 10, 5).await;
    }
    let mut letters = kafka.subscriber(&format!("kafka://{topic}.dead?group={}", unique("dead"))).await;
    let mut dead = Vec::new();
    for _ in 0..10 {
        let letter = next(&mut letters).await;
        let attributes = &letter.message().attributes;
        assert_eq!(attributes["dead-letter-reason"], "odd");
        assert_eq!(attributes["dead-letter-source"], format!("kafka://{topic}"));
        assert!(letter.message().key.is_some());
        dead.push(text(&letter));
        letter.ack().await.unwrap();
    }
    dead.sort();
    assert_eq!(dead, ["1", "1", "3", "3", "5", "5", "7", "7", "9", "9"]);
    close(letters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_publish_beyond_our_own_limit_has_a_letter_too() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = unique("large");
    let limit = 3 << 20;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.address).set("message.max.bytes", limit.to_string());
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let limit = limit.to_string();
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", &limit);
    let made = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let (body, published) = (vec![b'1'; 2 << 20], topic.clone());
    let sent = spawn_blocking(move || {
        let foreign: BaseProducer = config.create().unwrap();
        let record = BaseRecord::<str, [u8]>::to(&published).payload(&body);
        foreign.send(record).map_err(|(error, _)| error).unwrap();
        foreign.flush(common::PATIENCE).unwrap();
    });
    sent.await.unwrap();
    let (trigger, _cx, mut tasks) = run(&kafka.brokers, &format!("kafka://{topic}?group={topic}")).await;
    let mut letters = loop {
        // It is made when the router starts.
        match kafka.brokers.subscriber(&format!("kafka://{topic}.dead?group={topic}")).await {
            Ok(letters) => break letters,
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    };
    let letter = next(&mut letters).await;
    assert_eq!(letter.message().body.len(), 2 << 20);
    assert!(letter.message().attributes["dead-letter-reason"].contains("number too large"), "{letter:?}");
    letter.ack().await.unwrap();
    close(letters).await;
    trigger.request(Instant::now() + common::PATIENCE);
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

/// It is loud and counted, and lasts until somebody mends it: then the letter is made after all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_its_topic_does_not_take_is_held_until_the_topic_does() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let dead = format!("{topic}.dead");
    let config = ClientConfig::new().set("bootstrap.servers", &kafka.address).clone();
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(&dead, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "10000");
    assert!(admin.create_topics([&new], &AdminOptions::new()).await.unwrap().iter().all(Result::is_ok));
    let publisher = kafka.publisher(&topic).await;
    let body: String = (0..20_000).map(|n| char::from(b'1' + (n * n % 89 % 9) as u8)).collect();
    publisher.publish(Message::new(body.clone()).with_key("large")).await.unwrap();
    publisher.publish(Message::new("2").with_key("small")).await.unwrap();

    let url = format!("kafka://{topic}?group={topic}&compression=none");
    let policy = Policy::default().backoff(Backoff::fixed(Duration::from_millis(100)));
    let router = Router::new().route("stuck", kafka.subscriber(&url).await, refuse_odd).policy(policy.attempts(1));
    let running = mainspring_testing::Running::start(router);
    let count = |outcome: &str| {
        let (text, outcome) = (metrics::text(&[metrics::registry()]), format!("outcome=\"{outcome}\""));
        let mut lines =
            text.lines().filter(|line| line.starts_with("pubsub_outcome_total{") && line.contains("route=\"stuck\""));
        let line = lines.find(|line| line.contains(&outcome));
        line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
    };
    until(|| count("stuck") >= 3).await;
    until(|| count("acked") == 1).await;

    let raised = AlterConfig::new(ResourceSpecifier::Topic(&dead)).set("max.message.bytes", "100000");
    assert!(admin.alter_configs(&[raised], &AdminOptions::new()).await.unwrap().iter().all(Result::is_ok));
    let mut letters = kafka.subscriber(&format!("kafka://{dead}?group={dead}")).await;
    let letter = next(&mut letters).await;
    assert_eq!(text(&letter), body);
    letter.ack().await.unwrap();
    close(letters).await;
    running.stop().await;
}

async fn until(fact: impl Fn() -> bool) {
    let end = Instant::now() + common::PATIENCE;
    while !fact() {
        assert!(Instant::now() < end, "{}", metrics::text(&[metrics::registry()]));
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_router_does_not_start_where_the_topic_can_neither_be_found_nor_made() {
    let Some(kafka) = Kafka::up() else { return };
    // With `.dead` its name is too long.
    let topic = format!("{}-{}", unique("long"), "x".repeat(240)).split_at(246).0.to_owned();
    kafka.brokers.publisher(&format!("kafka://{topic}")).await.unwrap();
    let (_trigger, _cx, mut tasks) = run(&kafka.brokers, &format!("kafka://{topic}?group=g&grace=2s")).await;
    let error = tasks.join_next().await.unwrap().unwrap().unwrap_err();
    let said = format!("{error}: {}", error.source().unwrap());
    assert_eq!(error.kind(), ErrorKind::Config, "{said}");
    assert!(said.contains("`Router::dead_letter`"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_debug_page_tells_how_far_each_partition_is() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let publisher = kafka.publisher(&topic).await;
    let inbox = kafka.subscriber(&format!("kafka://{topic}?group={}", unique("page"))).await;
    let (trigger, cx) = Context::test("page");
    let mut tasks = JoinSet::new();
    let handler = |Text(text): Text| async move { if text == "3" { std::future::pending().await } else { Ok(()) } };
    tasks.spawn(Router::new().route("page", inbox, handler).run(cx.clone()));
    for number in 0..10 {
        publisher.publish(Message::new(number.to_string())).await.unwrap();
    }
    let [page] = cx.board().pages().try_into().expect("one page");
    let shown = async {
        loop {
            let body = page.render(PageRequest::new("GET", "", "")).await.body;
            if body.contains("  partition 0: committed 3, low 3, high 10, open 3\n") {
                return;
            }
            sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let late = timeout(common::PATIENCE, shown).await;
    assert!(late.is_ok(), "{}", page.render(PageRequest::new("GET", "", "")).await.body);
    trigger.request(Instant::now());
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

/// Somebody who is called at night sees why nothing more comes, and for the sake of which message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_waits_for_one_message_is_shown_until_that_is_done() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(1).await;
    let messages = (0..12_000).map(|number| Message::new(number.to_string())).collect();
    for published in kafka.publisher(&topic).await.publish_all(messages).await {
        published.unwrap();
    }
    let inbox = kafka.subscriber(&format!("kafka://{topic}?group={}", unique("waits"))).await;
    let (trigger, cx) = Context::test("waits");
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let handler = move |Text(text): Text| {
        let gate = Arc::clone(&gate);
        async move {
            if text == "0" {
                gate.acquire().await?.forget();
            }
            Ok::<_, Failure>(())
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(Router::new().route("waits", inbox, handler).run(cx.clone()));
    let waiting = || {
        let text = metrics::text(&[metrics::registry()]);
        let mut lines = text.lines().filter(|line| line.starts_with("pubsub_partitions_waiting{"));
        lines.find(|line| line.contains(&topic)).map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
    };
    until(|| waiting().as_deref() == Some("1")).await;
    let [page] = cx.board().pages().try_into().expect("one page");
    let shown = async {
        // Those behind it may still be in work.
        while !page
            .render(PageRequest::new("GET", "", ""))
            .await
            .body
            .contains("open 0; waits: nothing more is received until 0 is done\n")
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let late = timeout(common::PATIENCE, shown).await;
    assert!(late.is_ok(), "{}", page.render(PageRequest::new("GET", "", "")).await.body);
    open.add_permits(1);
    until(|| waiting().as_deref() == Some("0")).await;
    trigger.request(Instant::now() + common::PATIENCE);
    tasks.join_next().await.unwrap().unwrap().unwrap();
}
