//! What cannot work says so at start, and why.

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use common::{Kafka, unique};
use mainspring_pubsub::{Error, ErrorKind};
use tokio::time::Instant;

/// Opens both ways, and makes the topic; all have to fail within the grace of one second.
async fn errors(kafka: &Kafka, url: &str) -> Vec<Error> {
    let since = Instant::now();
    let publisher = kafka.brokers.publisher(&format!("{url}?grace=1s")).await.unwrap_err();
    let subscriber = kafka.brokers.subscriber(&format!("{url}?grace=1s&group=g")).await.unwrap_err();
    let creation = kafka.brokers.create_topic(&format!("{url}?grace=1s")).await.unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    vec![publisher, subscriber, creation]
}

#[tokio::test]
async fn a_refused_connection_is_named() {
    // A port that nobody listens at: it was ours a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let kafka = Kafka::at(&format!("127.0.0.1:{port}"));
    for error in errors(&kafka, "kafka://orders").await {
        assert_eq!((error.kind(), error.is_retryable(), error.backend()), (ErrorKind::Unavailable, true, "kafka"));
        assert!(error.to_string().contains("Connection refused"), "{error}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    for error in errors(&Kafka::at("no-such-host.invalid:9092"), "kafka://orders").await {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }
}

#[tokio::test]
async fn a_port_that_never_answers_is_named() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for error in errors(&Kafka::at(&address), "kafka://orders").await {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&address), "{error}");
    }
}

#[tokio::test]
async fn a_port_of_another_protocol_is_asked_about() {
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap().to_string();
    // Ends with the process.
    std::thread::spawn(move || {
        while let Ok((mut peer, _)) = web.accept() {
            let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    for error in errors(&Kafka::at(&address), "kafka://orders").await {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let said = error.to_string();
        assert!(said.contains("is this a Kafka port") && !said.contains("receive.message.max.bytes"), "{said}");
    }
}

#[tokio::test]
async fn a_missing_topic_is_named() {
    let Some(kafka) = Kafka::up() else { return };
    let (topic, since) = (unique("missing"), Instant::now());
    let url = format!("kafka://{topic}?group={topic}&grace=1s");
    let error = kafka.brokers.subscriber(&url).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (ErrorKind::NotFound, "kafka"));
    assert!(error.to_string().contains(&topic), "{error}");
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_refused_password_is_named_at_once_and_not_shown() {
    let Some(kafka) = Kafka::up() else { return };
    let url = format!("kafka://bob:hunter2@{}/orders", kafka.address);
    let since = Instant::now();
    for error in [
        kafka.brokers.publisher(&url).await.unwrap_err(),
        kafka.brokers.subscriber(&format!("{url}?group=g")).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::PermissionDenied, false), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(since.elapsed() < Duration::from_secs(10), "the grace of 10 s was not waited for: {:?}", since.elapsed());
}

#[tokio::test]
async fn unknown_options_and_missing_groups_are_faults_of_the_configuration() {
    let kafka = Kafka::at("127.0.0.1:1");
    for url in ["kafka://orders?grup=g", "kafka://orders"] {
        assert_eq!(kafka.brokers.subscriber(url).await.unwrap_err().kind(), ErrorKind::Config, "{url}");
    }
}

#[test]
fn a_missing_group_is_found_without_connecting_and_only_where_one_is_needed() {
    let brokers = Kafka::at("127.0.0.1:1").brokers;
    brokers.check("kafka://orders").unwrap();
    let error = brokers.check_subscriber("kafka://orders").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains("the option `group` is missing"), "{said}");
    brokers.check_subscriber("kafka://orders?group=ship").unwrap();
}
