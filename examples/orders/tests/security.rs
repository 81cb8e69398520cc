//! How the daemon ends when Kafka does not let it in.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// `orders` against the broker's listener that wants TLS and a password. `None` where there is no such broker and none
/// is required.
fn orders(settings: &[(&str, &str)]) -> Option<(Option<i32>, String)> {
    let address = std::env::var("MAINSPRING_KAFKA_PASSWORD").unwrap_or_else(|_| "127.0.0.1:19192".to_owned());
    if let Err(error) = std::net::TcpStream::connect(&address) {
        let required = ["CI", "MAINSPRING_REQUIRE_BROKERS"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!required, "no Kafka at {address}: {error}; start one with scripts/brokers.sh up");
        println!("SKIPPED: no Kafka at {address} ({error})");
        return None;
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    let since = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_orders"))
        .env_clear()
        .env("ORDERS_SERVER__HTTP__ADDR", "127.0.0.1:0")
        .env("ORDERS_SERVER__ADMIN__ADDR", "127.0.0.1:0")
        .env("ORDERS_TOPIC", "kafka://orders?group=ship&grace=3s")
        .env("KAFKA_BROKER_HOSTS", &address)
        .env("ORDERS_BROKERS__KAFKA__TLS__CA", cache.join("mainspring/brokers/kafka-tls/ca.pem"))
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.code(), String::from_utf8(said).unwrap()))
}

#[test]
fn a_wrong_password_ends_it_with_69_and_the_cause_without_showing_it() {
    let settings = [
        ("ORDERS_BROKERS__KAFKA__SECURITY", "sasl_ssl"),
        ("ORDERS_BROKERS__KAFKA__SASL__MECHANISM", "SCRAM-SHA-512"),
        ("ORDERS_BROKERS__KAFKA__SASL__USERNAME", "carol"),
        ("ORDERS_BROKERS__KAFKA__SASL__PASSWORD", "hunter2"),
    ];
    let Some((code, said)) = orders(&settings) else { return };
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("Authentication failed") && said.contains("SCRAM-SHA-512"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_user_without_a_password_ends_it_with_78_before_anything_is_opened() {
    let settings =
        [("ORDERS_BROKERS__KAFKA__SECURITY", "sasl_ssl"), ("ORDERS_BROKERS__KAFKA__SASL__USERNAME", "carol")];
    let Some((code, said)) = orders(&settings) else { return };
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("brokers.kafka.sasl.password"), "{said}");
}
