//! How a client shows who it is, and how its connections are encrypted.

use std::fs::File;
use std::io;
use std::path::Path;

use mainspring_config::{self as config, Secret};
use mainspring_pubsub::{Error, KafkaConfig, KafkaMechanism, KafkaSecurity, KafkaTlsConfig};
use rdkafka::ClientConfig;

/// Whether the client has OpenSSL, without which there are neither TLS nor SCRAM.
const HAS_TLS: bool = cfg!(feature = "tls");

/// What every connection of a client needs, checked.
#[derive(Clone)]
pub(crate) struct Security {
    protocol: KafkaSecurity,
    login: Option<Login>,
    tls: KafkaTlsConfig,
}

#[derive(Clone)]
struct Login {
    mechanism: KafkaMechanism,
    user: String,
    password: Secret,
}

impl Security {
    /// The configuration's, with the user and the password of the URL if it has any.
    pub(crate) fn new(login: Option<(String, Secret)>, config: &KafkaConfig) -> Result<Self, Error> {
        let protocol = if login.is_some() { config.security.with_login() } else { config.security };
        if protocol.has_tls() && !HAS_TLS {
            return Err(without_tls("brokers.kafka.security", protocol.as_str()));
        }
        let mechanism = config.sasl.mechanism;
        if protocol.has_login() && mechanism != KafkaMechanism::Plain && !HAS_TLS {
            return Err(without_tls("brokers.kafka.sasl.mechanism", mechanism.as_str()));
        }
        let configured = || config.sasl.username.clone().zip(config.sasl.password.clone());
        let login = match login.or_else(configured).filter(|_| protocol.has_login()) {
            Some((user, password)) => Some(Login { mechanism, user, password }),
            None if protocol.has_login() => {
                let what = format!(
                    "there is no user and no password, and `brokers.kafka.security` is `{}`",
                    protocol.as_str()
                );
                return Err(fault(
                    "brokers.kafka.sasl",
                    what,
                    "set `brokers.kafka.sasl.username` and `brokers.kafka.sasl.password`",
                ));
            }
            None => None,
        };
        Ok(Self { protocol, login, tls: config.tls.clone() })
    }

    /// Certificates have to be there when something is opened: a configuration can be checked elsewhere.
    pub(crate) fn check_files(&self) -> Result<(), Error> {
        if self.protocol.has_tls() {
            let files = [("ca", &self.tls.ca), ("cert", &self.tls.cert), ("key", &self.tls.key)];
            for (name, path) in files.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))) {
                readable(name, path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn apply(&self, config: &mut ClientConfig) {
        if self.protocol != KafkaSecurity::Plaintext {
            config.set("security.protocol", self.protocol.as_str());
        }
        if let Some(Login { mechanism, user, password }) = &self.login {
            config
                .set("sasl.mechanism", mechanism.as_str())
                .set("sasl.username", user)
                .set("sasl.password", password.expose());
        }
        if self.protocol.has_tls() {
            let KafkaTlsConfig { ca, cert, key, .. } = &self.tls;
            for (name, path) in [("ssl.ca.location", ca), ("ssl.certificate.location", cert), ("ssl.key.location", key)]
            {
                if let Some(path) = path {
                    config.set(name, path.to_string_lossy());
                }
            }
        }
    }
}

fn readable(name: &str, path: &Path) -> Result<(), Error> {
    let opened = File::open(path).and_then(|file| match file.metadata()?.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no file")),
    });
    opened.map_err(|cause| {
        let what = format!("cannot read `{}`: {cause}", path.display());
        fault(&format!("brokers.kafka.tls.{name}"), what, "name a file in PEM form that this process may read")
    })
}

fn without_tls(key: &str, value: &str) -> Error {
    let what = format!("`{value}` needs OpenSSL, which is not in this program");
    fault(key, what, "enable the cargo feature `kafka-tls` of `mainspring`")
}

fn fault(key: &str, what: String, hint: &str) -> Error {
    Error::config("open", config::Error::one(key, "brokers", what, hint)).with_backend(crate::SYSTEM)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use mainspring_pubsub::{ErrorKind, KafkaSaslConfig};

    use super::*;

    fn config(security: KafkaSecurity, mechanism: KafkaMechanism) -> KafkaConfig {
        let (username, password) = (Some("bob".to_owned()), Some("s3cret".to_owned().into()));
        let sasl = KafkaSaslConfig { mechanism, username, password };
        KafkaConfig { security, sasl, ..KafkaConfig::default() }
    }

    fn said(config: &KafkaConfig) -> String {
        let error = Security::new(None, config).and_then(|security| security.check_files()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.source().unwrap().to_string()
    }

    #[test]
    fn a_login_in_the_url_comes_first_and_keeps_the_encryption() {
        let login = Some(("eve".to_owned(), "other".to_owned().into()));
        let security = Security::new(login, &config(KafkaSecurity::Plaintext, KafkaMechanism::Plain)).unwrap();
        let mut client = ClientConfig::new();
        security.apply(&mut client);
        let set = |key| client.get(key);
        assert_eq!((set("security.protocol"), set("sasl.username")), (Some("sasl_plaintext"), Some("eve")));
        assert_eq!((set("sasl.mechanism"), set("sasl.password")), (Some("PLAIN"), Some("other")));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn what_needs_openssl_names_the_feature_to_enable() {
        for (config, key) in [
            (config(KafkaSecurity::SaslSsl, KafkaMechanism::Plain), "kafka.security"),
            (config(KafkaSecurity::Ssl, KafkaMechanism::Plain), "kafka.security"),
            (config(KafkaSecurity::SaslPlaintext, KafkaMechanism::ScramSha512), "kafka.sasl.mechanism"),
        ] {
            let said = said(&config);
            assert!(said.contains(key) && said.contains("enable the cargo feature `kafka-tls`"), "{said}");
        }
        Security::new(None, &config(KafkaSecurity::SaslPlaintext, KafkaMechanism::Plain)).unwrap();
    }

    #[cfg(feature = "tls")]
    #[test]
    fn certificates_that_are_not_there_are_faults_of_the_configuration() {
        let mut config = config(KafkaSecurity::SaslSsl, KafkaMechanism::ScramSha256);
        config.tls.ca = Some("/no/such/ca.pem".into());
        let said = said(&config);
        assert!(said.contains("kafka.tls.ca") && said.contains("/no/such/ca.pem"), "{said}");
        config.tls.ca = Some("/".into());
        assert!(self::said(&config).contains("it is no file"));
    }

    #[test]
    fn a_login_is_asked_for_where_one_is_needed() {
        let mut config = config(KafkaSecurity::SaslPlaintext, KafkaMechanism::Plain);
        config.sasl.password = None;
        assert!(said(&config).contains("`brokers.kafka.sasl.password`"));
    }
}
