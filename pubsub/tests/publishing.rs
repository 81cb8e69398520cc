//! Publishers: limits, the window, answers per message; and opening by URL.

mod common;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{brokers, next, orders, text};
use mainspring_config::{ByteSize, Duration as Length};
use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Opener, Url};
use mainspring_pubsub::{Brokers, BrokersConfig, Error, ErrorKind, Message, Receipt, Router, Text};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn messages_over_a_limit_are_refused_and_the_limit_is_named() {
    let (_brokers, publisher, mut inbox) = orders().await;
    let mut headers = Message::new("x");
    headers.attributes.extend((0..200).map(|i| (i.to_string(), String::new())));
    for (message, kind, limit) in [
        (
            Message::new(vec![0; 2 << 20]),
            ErrorKind::TooLarge,
            "has 2097152 bytes of body, key and attributes, the limit is 1048576",
        ),
        (headers, ErrorKind::TooLarge, "200 attributes, the limit is 100"),
        (Message::new("x").with_key("k".repeat(1025)), ErrorKind::TooLarge, "key has 1025 bytes, the limit is 1024"),
        (Message::new("x").with_attribute("", "v"), ErrorKind::Invalid, "an attribute has no name"),
    ] {
        let error = publisher.publish(message).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, false));
        assert!(error.to_string().contains(limit), "{error}");
    }
    common::assert_empty(&mut inbox);
}

#[tokio::test]
async fn one_bad_message_does_not_fail_its_neighbours() {
    let (_brokers, publisher, mut inbox) = orders().await;
    let batch = vec![Message::new("a"), Message::new(vec![0; 2 << 20]), Message::new("b")];
    let ids: Vec<_> = batch.iter().map(|message| message.id.clone()).collect();
    let results = publisher.publish_all(batch).await;
    assert_eq!(results.len(), 3);
    assert_eq!(results[0].as_ref().unwrap().id, ids[0]);
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(results[2].as_ref().unwrap().id, ids[2]);
    for expected in ["a", "b"] {
        let delivery = next(&mut inbox).await;
        assert_eq!(text(&delivery), expected);
        delivery.ack().await.unwrap();
    }
    assert!(publisher.publish_all(Vec::new()).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_window_bounds_messages_and_bytes_and_is_fair() {
    let slow = Slow::default();
    let mut config = BrokersConfig::default();
    config.publish.max_messages = 3;
    config.publish.max_bytes = ByteSize::bytes(100);
    let brokers = Brokers::new(&config).unwrap().register("slow", slow.clone());
    let publisher = brokers.publisher("slow://x").await.unwrap();
    let mut tasks = JoinSet::new();
    // 60 and 60 do not fit together; the small one came later and does not overtake.
    for size in [60, 60, 1] {
        let publisher = publisher.clone();
        tasks.spawn(async move { publisher.publish(Message::new(vec![0; size])).await });
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.busy(), 1, "bounded in bytes");
    slow.answer(1).await;
    assert_eq!(slow.busy(), 2);
    slow.answer(2).await;
    for _ in 0..5 {
        let publisher = publisher.clone();
        tasks.spawn(async move { publisher.publish(Message::new("x")).await });
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(slow.busy(), 3, "bounded in number");
    // A message larger than the window goes alone instead of waiting for ever.
    let alone = publisher.publish(Message::new(vec![0; 500]));
    let (alone, ()) = tokio::join!(alone, slow.answer(6));
    alone.unwrap();
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_publish_gives_its_room_back() {
    let slow = Slow::default();
    let mut config = BrokersConfig::default();
    config.publish.max_messages = 1;
    let brokers = Brokers::new(&config).unwrap().register("slow", slow.clone());
    let publisher = brokers.publisher("slow://x").await.unwrap();
    for _ in 0..3 {
        assert!(timeout(Duration::from_secs(1), publisher.publish(Message::new("x"))).await.is_err());
    }
    let (published, ()) = tokio::join!(publisher.publish(Message::new("x")), slow.answer(1));
    published.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_gets_no_answer_says_what_is_known() {
    let slow = Slow::default();
    let mut config = BrokersConfig::default();
    config.publish.max_messages = 1;
    config.publish.timeout = Length::from_secs(2);
    let brokers = Brokers::new(&config).unwrap().register("slow", slow.clone());
    let publisher = brokers.publisher("slow://x").await.unwrap();
    let started = Instant::now();
    let (sent, waiting) =
        tokio::join!(publisher.publish(Message::new("x")), publisher.publish_all(vec![Message::new("y")]));
    assert_eq!(started.elapsed().as_secs(), 2);
    let (sent, waiting) = (sent.unwrap_err(), waiting[0].as_ref().unwrap_err().to_string());
    assert_eq!((sent.kind(), sent.is_retryable()), (ErrorKind::Timeout, true));
    assert!(sent.to_string().contains("may or may not have been published"), "{sent}");
    assert!(waiting.contains("nothing was sent: the publish window (1 messages, 64MiB) stayed full"), "{waiting}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_answered_in_part_keeps_the_answers() {
    let slow = Slow::default();
    let mut config = BrokersConfig::default();
    config.publish.timeout = Length::from_secs(2);
    let brokers = Brokers::new(&config).unwrap().register("slow", slow.clone());
    let publisher = brokers.publisher("slow://x").await.unwrap();
    let started = Instant::now();
    let messages = (0..4).map(|n| Message::new(n.to_string())).collect();
    let (results, ()) = tokio::join!(publisher.publish_all(messages), slow.answer(2));
    assert_eq!(started.elapsed().as_secs(), 2);
    let said: Vec<_> = results.iter().map(|result| result.as_ref().map(drop).map_err(ToString::to_string)).collect();
    assert!(said[0].is_ok() && said[1].is_ok(), "{said:?}");
    assert!(said[2].as_ref().is_err_and(|said| said.contains("may or may not have been published")), "{said:?}");
    assert!(said[3].as_ref().is_err_and(|said| said.contains("nothing was sent")), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_is_waited_for_once_and_not_for_each_part_of_a_batch() {
    let slow = Slow::default();
    let mut config = BrokersConfig::default();
    config.publish.max_messages = 2;
    config.publish.timeout = Length::from_secs(2);
    let brokers = Brokers::new(&config).unwrap().register("slow", slow.clone());
    let publisher = brokers.publisher("slow://x").await.unwrap();
    let started = Instant::now();
    let results = publisher.publish_all((0..20).map(|n| Message::new(n.to_string())).collect()).await;
    assert_eq!(started.elapsed().as_secs(), 2);
    let unsent = |error: &mainspring_pubsub::Error| error.to_string().contains("nothing was sent");
    assert_eq!(results.iter().filter(|result| result.as_ref().is_err_and(unsent)).count(), 19);
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_what_is_on_its_way_and_no_longer_than_its_deadline() {
    let slow = Slow::default();
    let brokers = Brokers::new(&BrokersConfig::default()).unwrap().register("slow", slow.clone());
    let publisher = brokers.publisher("slow://x").await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let publisher = publisher.clone();
        tasks.spawn(async move { publisher.publish(Message::new("x")).await });
    }
    sleep(Duration::from_secs(1)).await;
    let error = brokers.flush(Instant::now() + Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("2 messages were still not confirmed"), "{error}");
    let (flushed, ()) = tokio::join!(brokers.flush(Instant::now() + Duration::from_secs(1)), slow.answer(2));
    flushed.unwrap();
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_is_out_of_time_still_has_the_driver_give_up_what_is_left() {
    let slow = Slow::default();
    let brokers = Brokers::new(&BrokersConfig::default()).unwrap().register("slow", slow.clone());
    let publisher = brokers.publisher("slow://x").await.unwrap();
    let mut task = JoinSet::new();
    task.spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(Message::new("x")).await }
    });
    tokio::task::yield_now().await;
    assert_eq!((slow.busy(), slow.flushes()), (1, 0));
    let error = publisher.flush(Instant::now() + Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("1 messages were still not confirmed"), "{error}");
    assert_eq!(slow.flushes(), 1);
    slow.answer(1).await;
    task.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_router_has_the_publishers_of_its_brokers_flushed_at_the_end() {
    let slow = Slow::default();
    let brokers = Brokers::new(&BrokersConfig::default()).unwrap().register("slow", slow.clone());
    let publisher = brokers.publisher("slow://x").await.unwrap();
    let handler = |Text(_): Text| async { Ok(()) };
    let mut router = Router::new();
    for group in ["a", "b"] {
        router = router.route(group, brokers.subscriber(&format!("memory://o?group={group}")).await.unwrap(), handler);
    }
    let router = common::start(router);
    let cx = router.cx.clone();
    router.stop().await;
    let flushes = cx.board().take_flushes().into_iter().map(|flush| flush.run());
    let flushes = futures_util::future::join_all(flushes);
    let mut task = JoinSet::new();
    task.spawn(async move { publisher.publish(Message::new("x")).await });
    tokio::task::yield_now().await;
    let (flushed, ()) = tokio::join!(flushes, slow.answer(1));
    assert!(flushed.iter().all(Result::is_ok), "{flushed:?}");
    assert_eq!(slow.flushes(), 1, "one for all routes");
    assert!(task.try_join_next().expect("flushed means answered").unwrap().is_ok());
}

#[tokio::test]
async fn urls_that_cannot_be_opened_are_configuration_faults_with_a_hint() {
    let brokers = brokers();
    for (url, what) in [
        ("", "the URL is empty"),
        ("orders", "`://` is missing"),
        ("memory://orders?grup=ship", "unknown option `grup`; did you mean `group`? known options: group"),
        ("memori://orders", "unknown scheme `memori`; did you mean `memory`?"),
        ("ftp://orders", "unknown scheme `ftp`; this program knows: memory"),
        ("kafka://orders?group=ship", "enable the cargo feature `kafka` of `mainspring`"),
        (
            "sns://orders",
            "this version has no driver for `sns`; the cargo feature `aws` of a later one will add it; this program",
        ),
        ("sqs://orders", "no driver for `sqs`"),
        ("gcp://orders", "no driver for `gcp`"),
        ("https://example.com/hook", "no driver for `https`"),
    ] {
        let opened = [brokers.publisher(url).await.unwrap_err(), brokers.subscriber(url).await.unwrap_err()];
        for error in opened.into_iter().chain([brokers.check(url).unwrap_err()]) {
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Config, false));
            let source = error.source().expect("a cause");
            assert!(source.is::<mainspring_config::Error>(), "{source:?}");
            assert!(source.to_string().contains(what), "{source}");
        }
    }
}

/// A broker that answers when it is told to.
#[derive(Clone, Debug)]
struct Slow {
    answers: Arc<Semaphore>,
    busy: Arc<AtomicUsize>,
    flushes: Arc<AtomicUsize>,
}

impl Default for Slow {
    fn default() -> Self {
        Self { answers: Arc::new(Semaphore::new(0)), busy: Arc::default(), flushes: Arc::default() }
    }
}

impl Slow {
    fn busy(&self) -> usize {
        self.busy.load(Ordering::SeqCst)
    }

    fn flushes(&self) -> usize {
        self.flushes.load(Ordering::SeqCst)
    }

    async fn answer(&self, count: usize) {
        self.answers.add_permits(count);
        sleep(Duration::from_millis(1)).await;
    }
}

#[async_trait::async_trait]
impl driver::Publisher for Slow {
    async fn publish(&self, message: Message, _deadline: Instant) -> Result<Receipt, Error> {
        struct Busy<'a>(&'a AtomicUsize);
        impl Drop for Busy<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.busy.fetch_add(1, Ordering::SeqCst);
        let _busy = Busy(&self.busy);
        self.answers.acquire().await.unwrap().forget();
        Ok(Receipt::new(message.id))
    }

    async fn flush(&self, _deadline: Instant) -> Result<(), Error> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("slow", "x")
    }
}

#[async_trait::async_trait]
impl Opener for Slow {
    async fn publisher(&self, _url: &Url) -> Result<Box<dyn driver::Publisher>, Error> {
        Ok(Box::new(self.clone()))
    }

    async fn subscriber(&self, url: &Url) -> Result<Box<dyn driver::Subscriber>, Error> {
        Err(url.fault("nothing to receive", ""))
    }
}
