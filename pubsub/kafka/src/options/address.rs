//! Where a topic is: `topic`, `host:9092,host:9092/topic`, `user:password@host:9092/topic`.

use mainspring_config::Secret;
use mainspring_pubsub::driver::Url;
use mainspring_pubsub::{Error, KafkaConfig};

const PORT: u16 = 9092;
const MAX_TOPIC: usize = 249;

/// What a URL says before its options, and the configuration where the URL says nothing.
pub(super) struct Address {
    pub(super) topic: String,
    /// `host:port`, with commas.
    pub(super) brokers: String,
    /// A user and a password.
    pub(super) login: Option<(String, Secret)>,
}

impl Address {
    pub(super) fn of(url: &Url, config: &KafkaConfig) -> Result<Self, Error> {
        let (servers, topic) = match url.name().rsplit_once('/') {
            Some((servers, topic)) => (Some(servers), topic),
            None => (None, url.name()),
        };
        let topic = match (topic, &config.topic) {
            ("", Some(default)) => default,
            (topic, _) => topic,
        };
        check_topic(url, topic)?;
        let (login, servers) = match servers.and_then(|servers| servers.rsplit_once('@')) {
            Some((login, servers)) => (Some(login_of(url, login)?), Some(servers)),
            None => (None, servers),
        };
        let brokers = match servers {
            Some(servers) => brokers_of(url, servers.split(','), "the URL")?,
            None if config.brokers.is_empty() => {
                let hint = "set `brokers.kafka.brokers` (KAFKA_BROKER_HOSTS), or write `kafka://host:9092/topic`";
                return Err(url.fault("no Kafka broker is named", hint));
            }
            None => brokers_of(url, config.brokers.iter().map(String::as_str), "`brokers.kafka.brokers`")?,
        };
        Ok(Self { topic: topic.to_owned(), brokers, login })
    }
}

pub(crate) fn check_topic(url: &Url, topic: &str) -> Result<(), Error> {
    let hint = "topics have 1 to 249 letters, digits, `.`, `_` and `-`";
    if topic.is_empty() {
        return Err(url.fault(
            "the topic is missing",
            "write it as `kafka://topic` or `kafka://host:9092/topic`, or set `brokers.kafka.topic` (KAFKA_TOPIC)",
        ));
    }
    if topic.len() > MAX_TOPIC || topic == "." || topic == ".." {
        return Err(url.fault(format!("`{topic}` cannot be a topic"), hint));
    }
    match topic.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
        Some(wrong) => Err(url.fault(format!("a topic cannot have `{wrong}` in its name"), hint)),
        None => Ok(()),
    }
}

fn login_of(url: &Url, login: &str) -> Result<(String, Secret), Error> {
    match login.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok((user.to_owned(), password.to_owned().into()))
        }
        _ => Err(url.fault("before `@` stand a user and a password", "write `kafka://user:password@host:9092/topic`")),
    }
}

fn brokers_of<'a>(url: &Url, brokers: impl Iterator<Item = &'a str>, place: &str) -> Result<String, Error> {
    let mut all = String::new();
    for broker in brokers.flat_map(|brokers| brokers.split(',')) {
        let (host, port) = match broker.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, port.parse().ok()),
            _ => (broker, Some(PORT)),
        };
        let Some(port) = port.filter(|port| *port > 0 && !host.is_empty() && !host.contains('/')) else {
            let what = format!("`{broker}` in {place} is no broker");
            return Err(url.fault(what, "brokers are written as `host:9092`, with commas between them"));
        };
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(&format!("{host}:{port}"));
    }
    Ok(all)
}
