//! Brokers that want TLS, passwords and certificates, and clients that have the wrong ones.

mod common;

use std::time::Duration;

use common::secure::{Secure, at, file};
use common::{Kafka, close, next, publish, text, unique};
use mainspring_pubsub::KafkaMechanism::{Plain, ScramSha256, ScramSha512};
use mainspring_pubsub::{Error, ErrorKind, KafkaConfig, KafkaSecurity, KafkaTlsConfig};
use tokio::time::Instant;

/// Messages go there and come back.
async fn works(kafka: &Kafka, topic: &str) {
    publish(&kafka.publisher(topic).await, 3, 1).await;
    let mut subscriber = kafka.subscriber(&format!("kafka://{topic}?group={}", unique("g"))).await;
    for number in 0..3 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(text(&delivery), number.to_string());
        delivery.ack().await.unwrap();
    }
    close(subscriber).await;
}

/// Opens both ways; both have to fail, and long before a grace of a minute is over.
async fn errors(kafka: &Kafka, topic: &str, grace: &str) -> [Error; 2] {
    let since = Instant::now();
    let url = format!("kafka://{topic}?group=g&grace={grace}");
    let (publisher, subscriber) = tokio::join!(kafka.brokers.publisher(&url), kafka.brokers.subscriber(&url));
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    [publisher.unwrap_err(), subscriber.unwrap_err()]
}

#[tokio::test]
async fn every_mechanism_lets_in_who_has_the_password() {
    let Some(secure) = Secure::up() else { return };
    for (mechanism, user) in [(Plain, "bob"), (ScramSha256, "alice"), (ScramSha512, "carol")] {
        let topic = secure.open.topic(1).await;
        works(&secure.login(mechanism, user, "s3cret"), &topic).await;
    }
}

#[tokio::test]
async fn a_password_in_the_url_travels_over_the_configured_tls() {
    let Some(secure) = Secure::up() else { return };
    let tls = KafkaTlsConfig { ca: Some(file("ca.pem")), ..KafkaTlsConfig::default() };
    let kafka = at("unused:1", KafkaConfig { security: KafkaSecurity::Ssl, tls, ..KafkaConfig::default() });
    let topic = secure.open.topic(1).await;
    works(&kafka, &format!("bob:s3cret@{}/{topic}", secure.password)).await;
}

#[tokio::test]
async fn a_wrong_password_is_named_at_once_and_not_shown() {
    let Some(secure) = Secure::up() else { return };
    let topic = secure.open.topic(1).await;
    // `carol` has a password, but none for SHA-256.
    for (mechanism, user) in [(Plain, "bob"), (ScramSha256, "alice"), (ScramSha512, "carol"), (ScramSha256, "carol")] {
        let kafka = secure.login(mechanism, user, "hunter2");
        for error in errors(&kafka, &topic, "1m").await {
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::PermissionDenied, false), "{error}");
            assert!(error.to_string().to_lowercase().contains("authentication"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_broker_whose_certificate_nobody_vouches_for_is_named() {
    let Some(secure) = Secure::up() else { return };
    // Another authority; and those that the system trusts.
    for ca in [Some(file("stranger.pem")), None] {
        let kafka = secure.certified(KafkaTlsConfig { ca, ..KafkaTlsConfig::default() });
        for error in errors(&kafka, "orders", "1m").await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            let said = error.to_string();
            assert!(
                said.contains("certificate could not be verified") && said.contains("`brokers.kafka.tls.ca`"),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn a_clients_certificate_lets_it_in_and_none_does_not() {
    let Some(secure) = Secure::up() else { return };
    let topic = secure.open.topic(1).await;
    let mut tls = KafkaTlsConfig { ca: Some(file("ca.pem")), ..KafkaTlsConfig::default() };
    for error in errors(&secure.certified(tls.clone()), &topic, "1m").await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("does not take our certificate: see `brokers.kafka.tls.cert`"), "{error}");
    }
    (tls.cert, tls.key) = (Some(file("client.pem")), Some(file("client.key")));
    works(&secure.certified(tls), &topic).await;
}

#[tokio::test]
async fn a_file_that_is_no_certificate_is_a_fault_of_the_configuration() {
    let Some(secure) = Secure::up() else { return };
    let kafka = secure.certified(KafkaTlsConfig { ca: Some(file("log")), ..KafkaTlsConfig::default() });
    for error in errors(&kafka, "orders", "1m").await {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("ssl.ca.location") && cause.contains("`brokers.kafka.tls.ca`"), "{cause}");
    }
}

#[tokio::test]
async fn tls_that_only_one_side_wants_is_named() {
    let Some(secure) = Secure::up() else { return };
    let tls = KafkaTlsConfig { ca: Some(file("ca.pem")), ..KafkaTlsConfig::default() };
    let kafka = at(&secure.open.address, KafkaConfig { security: KafkaSecurity::Ssl, tls, ..KafkaConfig::default() });
    for error in errors(&kafka, "orders", "5s").await {
        assert!(error.to_string().contains("agree on TLS"), "{error}");
    }
    for error in errors(&Kafka::at(&secure.password), "orders", "5s").await {
        assert!(error.to_string().contains("TLS") || error.to_string().contains("SSL"), "{error}");
        println!("{error}");
    }
}
