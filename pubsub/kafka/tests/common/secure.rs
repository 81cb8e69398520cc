//! The listeners of the real broker that let in only who shows who they are.

use std::net::TcpStream;
use std::path::PathBuf;

use mainspring_pubsub::{BrokersConfig, KafkaConfig, KafkaMechanism, KafkaSaslConfig, KafkaSecurity, KafkaTlsConfig};

use super::Kafka;

/// Where the broker wants TLS and a password, and where TLS and a client's certificate. `open` is the one that wants
/// neither, to make topics with.
pub struct Secure {
    pub open: Kafka,
    pub password: String,
    pub certificate: String,
}

impl Secure {
    /// The broker to test against. Without one the test is skipped, unless it is meant to run: then it fails.
    pub fn up() -> Option<Self> {
        let open = Kafka::up()?;
        let address = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let password = address("MAINSPRING_KAFKA_PASSWORD", "127.0.0.1:19192");
        let certificate = address("MAINSPRING_KAFKA_CERTIFICATE", "127.0.0.1:19193");
        for listener in [&password, &certificate] {
            if let Err(error) = TcpStream::connect(listener) {
                let what = format!(
                    "no listener at {listener}: {error}; an older scripts/brokers.sh started this Kafka: stop and start it"
                );
                let required = ["CI", "MAINSPRING_REQUIRE_BROKERS"].iter().any(|name| std::env::var_os(name).is_some());
                assert!(!required, "{what}");
                println!("SKIPPED: {what}");
                return None;
            }
        }
        Some(Self { open, password, certificate })
    }

    /// The broker, for someone who logs in with a password.
    pub fn login(&self, mechanism: KafkaMechanism, user: &str, password: &str) -> Kafka {
        let sasl =
            KafkaSaslConfig { mechanism, username: Some(user.to_owned()), password: Some(password.to_owned().into()) };
        let tls = KafkaTlsConfig { ca: Some(file("ca.pem")), ..KafkaTlsConfig::default() };
        at(&self.password, KafkaConfig { security: KafkaSecurity::SaslSsl, sasl, tls, ..KafkaConfig::default() })
    }

    /// The broker, for someone who trusts and shows these certificates.
    pub fn certified(&self, tls: KafkaTlsConfig) -> Kafka {
        at(&self.certificate, KafkaConfig { security: KafkaSecurity::Ssl, tls, ..KafkaConfig::default() })
    }
}

pub fn at(address: &str, kafka: KafkaConfig) -> Kafka {
    Kafka::with(address, &BrokersConfig { kafka, ..BrokersConfig::default() })
}

/// One of the files that `scripts/brokers.sh` has made.
pub fn file(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    cache.join("mainspring/brokers/kafka-tls").join(name)
}
