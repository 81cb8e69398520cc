//! What a router gives up goes to a topic beside its source.

mod common;

use std::error::Error as _;

use common::{Kafka, close, next, publish, text, unique};
use mainspring_daemon::{Context, PageRequest};
use mainspring_pubsub::{Brokers, Error, ErrorKind, Failure, Message, Router, Text};
use tokio::task::JoinSet;
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
