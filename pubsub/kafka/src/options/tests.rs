//! What is accepted, and what is said of what is not.

use std::error::Error as _;

use mainspring_pubsub::ErrorKind;

use super::*;

fn options(url: &str) -> Result<Options, Error> {
    let brokers = vec!["one:1,two".to_owned(), "three:3".to_owned()];
    let config = KafkaConfig { brokers, ..KafkaConfig::default() };
    Options::new(&Url::parse(url).unwrap(), &config)
}

#[test]
fn brokers_come_from_the_url_before_the_configuration() {
    assert_eq!(options("kafka://orders").unwrap().brokers, "one:1,two:9092,three:3");
    let named = options("kafka://a:7,b/orders?group=g").unwrap();
    assert_eq!((named.brokers.as_str(), named.topic.as_str()), ("a:7,b:9092", "orders"));
    let named = options("kafka://bob:s3cret@a:7/orders").unwrap();
    assert_eq!(named.brokers, "a:7");
    assert!(!format!("{named:?}").contains("s3cret"));
}

#[test]
fn the_configuration_names_the_topic_of_urls_that_name_none() {
    let brokers = vec!["one:1".to_owned()];
    let config = KafkaConfig { brokers, topic: Some("orders".to_owned()), ..KafkaConfig::default() };
    let topic = |url: &str| Options::new(&Url::parse(url).unwrap(), &config).unwrap().topic;
    assert_eq!(topic("kafka://?group=g"), "orders");
    assert_eq!(topic("kafka://host:9092/?group=g"), "orders");
    assert_eq!(topic("kafka://others?group=g"), "others");
}

#[test]
fn faults_say_what_is_wrong() {
    let url = Url::parse("kafka://orders?group=g").unwrap();
    let none = Options::new(&url, &KafkaConfig::default()).unwrap_err();
    let mut faults = vec![(none, "no Kafka broker is named")];
    for (url, what) in [
        ("kafka://orders?grup=g", "did you mean `group`"),
        ("kafka://orders?protocol=new", "one of: auto, classic, consumer"),
        ("kafka://orders?auto_offset_reset=newest", "one of: earliest, latest"),
        ("kafka://orders?compression=zip", "one of: none, gzip"),
        ("kafka://orders?membership=eternal", "one of: dynamic, static"),
        ("kafka://orders?membership=static&instance=a:b", "`instance=a:b` cannot name a static member"),
        ("kafka://orders?linger=5", "linger=5"),
        ("kafka://orders?drain=1h", "at most 4m"),
        ("kafka://orders?session_timeout=6s", "add `protocol=classic`"),
        ("kafka://orders?session_timeout=10ms&protocol=classic", "`session_timeout` is too short"),
        ("kafka://orders?rebalance_timeout=10s", "at least the session's, 45 s"),
        ("kafka://orders?rebalance_timeout=9s&protocol=consumer", "up to 5 s more"),
        ("kafka://orders?rebalance_timeout=1m&drain=58s", "up to 5 s more"),
        ("kafka://host:0/orders", "`host:0` in the URL is no broker"),
        ("kafka://host:x/orders", "`host:x` in the URL is no broker"),
        ("kafka://http://host:9092/orders", "`http://host:9092` in the URL is no broker"),
        ("kafka://bob@host/orders", "a user and a password"),
        ("kafka://host/", "the topic is missing"),
        ("kafka://?group=g", "set `brokers.kafka.topic` (KAFKA_TOPIC)"),
        ("kafka://or:ders", "cannot have `:`"),
        ("kafka://..", "`..` cannot be a topic"),
    ] {
        faults.push((options(url).unwrap_err(), what));
    }
    for (error, what) in faults {
        assert_eq!(error.kind(), ErrorKind::Config);
        let said = error.source().unwrap().to_string();
        assert!(said.contains(what), "{what}: {said}");
    }
}

#[test]
fn a_short_rebalance_timeout_needs_a_short_session_or_one_that_is_the_brokers() {
    for url in [
        "kafka://orders?rebalance_timeout=10s&protocol=consumer",
        "kafka://orders?rebalance_timeout=10s&protocol=classic&session_timeout=6s",
    ] {
        assert_eq!(options(url).unwrap().rebalance_timeout, Some(Duration::from_secs(10)), "{url}");
    }
}

#[test]
fn subscribing_needs_a_group() {
    let url = Url::parse("kafka://orders").unwrap();
    let error = options("kafka://orders").unwrap().expect_group(&url).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("`group` is missing"));
}
