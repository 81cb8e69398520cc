//! How Apache Kafka is reached, and what it is shown to be let in.

use std::path::PathBuf;

use mainspring_config::{Check, Report, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Apache Kafka.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to ask first, each `host:port`, for URLs that name none.
    #[schemars(extend("x-env" = ["KAFKA_BROKER_HOSTS"]))]
    pub brokers: Vec<String>,
    /// The topic of URLs that name none, such as `kafka://?group=ship`.
    #[schemars(extend("x-env" = ["KAFKA_TOPIC"]))]
    pub topic: Option<String>,
    /// How often a message is sent again that the broker did not confirm; without it, for as long as
    /// `publish.timeout` allows. With 0, what the broker did not confirm is never sent twice, and so needs no sequence
    /// numbers to be told apart.
    #[schemars(extend("x-env" = ["KAFKA_MAX_RETRY"]))]
    pub max_retry: Option<u32>,
    /// How connections are protected: `ssl` and `sasl_ssl` need the cargo feature `kafka-tls`.
    pub security: KafkaSecurity,
    /// The user to log in as, with `sasl_plaintext` and `sasl_ssl`. A user and a password in the URL come first.
    pub sasl: KafkaSaslConfig,
    /// Certificates, with `ssl` and `sasl_ssl`.
    pub tls: KafkaTlsConfig,
}

/// The client's own limit.
const MOST_RETRIES: u32 = i32::MAX as u32;

/// How connections to Kafka are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KafkaSecurity {
    /// Not at all.
    #[default]
    Plaintext,
    /// With TLS; the broker may know its clients by their certificates.
    Ssl,
    /// With a user and a password, but without TLS: whoever listens can read everything, with `PLAIN` the password too.
    SaslPlaintext,
    /// With TLS, a user and a password.
    SaslSsl,
}

/// The user to log in as.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSaslConfig {
    /// How the password is proved. `SCRAM-SHA-256` and `SCRAM-SHA-512`, which never send it, need the cargo feature
    /// `kafka-tls`.
    pub mechanism: KafkaMechanism,
    /// The user's name.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
}

/// How a password is proved to Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum KafkaMechanism {
    /// It is sent as it is.
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    /// By challenge and response, with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// By challenge and response, with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// Certificates, all of them files in PEM form. They are read when a publisher or a subscriber is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaTlsConfig {
    /// Certificates of those who may have signed a broker's; without it, the ones that the system trusts.
    pub ca: Option<PathBuf>,
    /// This client's own certificate, for brokers that ask for one.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`, not encrypted.
    pub key: Option<PathBuf>,
}

impl KafkaSecurity {
    /// The name that Kafka has for it, and the configuration too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether connections are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether a user logs in.
    pub fn has_login(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// The same, with a user who logs in.
    pub fn with_login(self) -> Self {
        if self.has_tls() { Self::SaslSsl } else { Self::SaslPlaintext }
    }
}

impl KafkaMechanism {
    /// The name that Kafka has for it, and the configuration too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Keys are relative to the section that holds this one as `kafka`.
impl Check for KafkaConfig {
    fn check(&self, report: &mut Report) {
        if self.max_retry.is_some_and(|retries| retries > MOST_RETRIES) {
            report.fault("kafka.max_retry", "the client cannot count so far", "leave it out to retry without end");
        }
        let (security, sasl, tls) = (self.security, &self.sasl, &self.tls);
        let has_name = sasl.username.as_ref().is_some_and(|name| !name.is_empty());
        let has_password = sasl.password.as_ref().is_some_and(|password| !password.expose().is_empty());
        for (key, set) in [("kafka.sasl.username", has_name), ("kafka.sasl.password", has_password)] {
            if security.has_login() && !set {
                let what = format!("is not set, and `brokers.kafka.security` is `{}`", security.as_str());
                report.conflict(&[key, "kafka.security"], what, "set it, or use `plaintext` or `ssl`");
            }
            if !security.has_login() && set {
                let what = format!("would not be used: `brokers.kafka.security` is `{}`", security.as_str());
                let hint = format!("set `brokers.kafka.security` to `{}`", security.with_login().as_str());
                report.conflict(&[key, "kafka.security"], what, hint);
            }
        }
        for (key, set) in [
            ("kafka.tls.ca", tls.ca.is_some()),
            ("kafka.tls.cert", tls.cert.is_some()),
            ("kafka.tls.key", tls.key.is_some()),
        ] {
            if set && !security.has_tls() {
                let what = format!("would not be used: `brokers.kafka.security` is `{}`", security.as_str());
                let hint = format!("set `brokers.kafka.security` to `{}`", if has_name { "sasl_ssl" } else { "ssl" });
                report.conflict(&[key, "kafka.security"], what, hint);
            }
        }
        if tls.cert.is_some() != tls.key.is_some() {
            let (key, other) = match tls.cert {
                Some(_) => ("kafka.tls.key", "kafka.tls.cert"),
                None => ("kafka.tls.cert", "kafka.tls.key"),
            };
            let what = format!("is not set, and `{other}` is");
            report.conflict(&[key, other], what, "a client's certificate and its key belong together");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the check says about a configuration in TOML's shape: `key: what; hint`.
    fn faults(config: serde_json::Value) -> Vec<String> {
        let config: KafkaConfig = serde_json::from_value(config).unwrap();
        let problems = Report::of(&config).into_iter();
        problems
            .map(|problem| format!("{}: {}; {}", problem.key, problem.what, problem.hint.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_login_needs_a_name_and_a_password_and_a_protocol_that_uses_them() {
        let all = serde_json::json!({"security": "sasl_ssl", "sasl": {"username": "bob", "password": "s3cret"}});
        assert_eq!(faults(all), [""; 0]);
        let none = faults(serde_json::json!({"security": "sasl_ssl", "sasl": {"username": "bob"}}));
        assert_eq!(none.len(), 1);
        assert!(
            none[0].starts_with("kafka.sasl.password: is not set, and `brokers.kafka.security` is `sasl_ssl`"),
            "{none:?}"
        );
        let unused = faults(serde_json::json!({"security": "ssl", "sasl": {"username": "bob", "password": "s3cret"}}));
        assert_eq!(unused.len(), 2);
        assert!(unused.iter().all(|fault| fault.ends_with("set `brokers.kafka.security` to `sasl_ssl`")), "{unused:?}");
        assert!(unused.iter().all(|fault| !fault.contains("s3cret")), "{unused:?}");
    }

    #[test]
    fn certificates_need_tls_and_their_keys() {
        assert_eq!(faults(serde_json::json!({"security": "ssl", "tls": {"ca": "ca.pem"}})), [""; 0]);
        let unused = faults(serde_json::json!({"tls": {"ca": "ca.pem"}}));
        assert_eq!(
            unused,
            [
                "kafka.tls.ca: would not be used: `brokers.kafka.security` is `plaintext`; set `brokers.kafka.security` to `ssl`"
            ]
        );
        let alone = faults(serde_json::json!({"security": "ssl", "tls": {"cert": "me.pem"}}));
        assert!(
            alone.len() == 1 && alone[0].starts_with("kafka.tls.key: is not set, and `kafka.tls.cert` is"),
            "{alone:?}"
        );
    }
}
