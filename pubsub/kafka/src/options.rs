//! What a `kafka://` URL says.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use mainspring_config as config;
use mainspring_pubsub::driver::{Limits, Url};
use mainspring_pubsub::{Error, KafkaConfig};

use crate::publisher;
use crate::security::Security;

const KNOWN: [&str; 11] = [
    "group",
    "protocol",
    "auto_offset_reset",
    "session_timeout",
    "rebalance_timeout",
    "drain",
    "grace",
    "client_id",
    "compression",
    "linger",
    "instance",
];
const COMPRESSIONS: [&str; 5] = ["none", "gzip", "lz4", "snappy", "zstd"];
const PORT: u16 = 9092;
const MAX_TOPIC: usize = 249;
/// The client lets its membership lapse when a rebalance takes five minutes.
const MAX_DURATION: Duration = Duration::from_secs(240);
const LEAST_SESSION: Duration = Duration::from_secs(1);
/// The client's own session timeout.
const SESSION: Duration = Duration::from_secs(45);
/// How long a commit may take that others wait for: as long as it does, the group cannot go on.
pub(crate) const COMMIT: Duration = Duration::from_secs(5);

/// A `kafka://` URL, checked, with what the configuration adds.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) topic: String,
    /// `host:port`, with commas.
    pub(crate) brokers: String,
    pub(crate) security: Security,
    pub(crate) group: Option<String>,
    pub(crate) protocol: Protocol,
    pub(crate) reset: Reset,
    pub(crate) session_timeout: Option<Duration>,
    /// The client's own without one, five minutes.
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) drain: Duration,
    pub(crate) grace: Duration,
    pub(crate) client_id: String,
    pub(crate) compression: String,
    pub(crate) linger: Duration,
    /// Of what is published.
    pub(crate) limits: Limits,
    /// `None` for as often as there is time.
    pub(crate) max_retry: Option<u32>,
    /// What tells this member of the group from the others, and stays when it is started again.
    pub(crate) instance: Option<String>,
}

/// How the members of a group agree on who reads what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `consumer` where the broker has it, else `classic`.
    Auto,
    /// The clients agree among themselves; everything stops at each change.
    Classic,
    /// The broker decides, partition by partition (KIP-848; Kafka 4.0 or later).
    Consumer,
}

/// Where a group begins that has no position yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    Earliest,
    Latest,
}

impl Options {
    pub(crate) fn new(url: &Url, config: &KafkaConfig) -> Result<Self, Error> {
        url.expect_options(&KNOWN)?;
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
                let hint = "set `kafka.brokers` (KAFKA_BROKER_HOSTS), or write `kafka://host:9092/topic`";
                return Err(url.fault("no Kafka broker is named", hint));
            }
            None => brokers_of(url, config.brokers.iter().map(String::as_str), "`kafka.brokers`")?,
        };
        let protocol = match url.option("protocol") {
            None | Some("auto") => Protocol::Auto,
            Some("classic") => Protocol::Classic,
            Some("consumer") => Protocol::Consumer,
            Some(other) => return Err(not_one_of(url, "protocol", other, &["auto", "classic", "consumer"])),
        };
        let reset = match url.option("auto_offset_reset") {
            None | Some("earliest") => Reset::Earliest,
            Some("latest") => Reset::Latest,
            Some(other) => return Err(not_one_of(url, "auto_offset_reset", other, &["earliest", "latest"])),
        };
        let session_timeout = url.option("session_timeout").map(|_| duration(url, "session_timeout", Duration::ZERO));
        let session_timeout = session_timeout.transpose()?;
        if session_timeout.is_some() && protocol != Protocol::Classic {
            let hint = "add `protocol=classic`, or leave it to the broker's group.consumer.session.timeout.ms";
            return Err(url.fault("`session_timeout` only concerns the classic group protocol", hint));
        }
        if session_timeout.is_some_and(|timeout| timeout < LEAST_SESSION) {
            return Err(url.fault("`session_timeout` is too short", "brokers take 6s and more, unless told otherwise"));
        }
        let drain = duration(url, "drain", Duration::from_secs(5))?;
        let rebalance_timeout = url.option("rebalance_timeout").map(|_| duration(url, "rebalance_timeout", SESSION));
        let rebalance_timeout = rebalance_timeout.transpose()?;
        if let Some(timeout) = rebalance_timeout {
            let session = session_timeout.unwrap_or(SESSION);
            if timeout < session {
                let hint = format!("use at least the session's, {} s", session.as_secs());
                return Err(url.fault("`rebalance_timeout` is too short", hint));
            }
            if timeout < drain + COMMIT {
                let hint = format!(
                    "a member that drains for {} s commits for up to {} s more",
                    drain.as_secs(),
                    COMMIT.as_secs()
                );
                return Err(url.fault("`drain` does not fit into `rebalance_timeout`", hint));
            }
        }
        let compression = url.option("compression").unwrap_or("lz4");
        if !COMPRESSIONS.contains(&compression) {
            return Err(not_one_of(url, "compression", compression, &COMPRESSIONS));
        }
        Ok(Self {
            topic: topic.to_owned(),
            brokers,
            security: Security::new(login, config)?,
            group: url.option("group").map(str::to_owned),
            protocol,
            reset,
            session_timeout,
            rebalance_timeout,
            drain,
            grace: duration(url, "grace", Duration::from_secs(10))?,
            client_id: url.option("client_id").unwrap_or("mainspring").to_owned(),
            compression: compression.to_owned(),
            linger: duration(url, "linger", Duration::from_millis(5))?,
            limits: publisher::limits(),
            max_retry: config.max_retry,
            instance: url.option("instance").map(str::to_owned),
        })
    }

    /// The group, without which nobody can subscribe.
    pub(crate) fn expect_group(&self, url: &Url) -> Result<String, Error> {
        let missing = || url.fault("the option `group` is missing", "subscribers of a group share its messages");
        self.group.clone().ok_or_else(missing)
    }
}

/// The password stays out.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("topic", &self.topic)
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

pub(crate) fn check_topic(url: &Url, topic: &str) -> Result<(), Error> {
    let hint = "topics have 1 to 249 letters, digits, `.`, `_` and `-`";
    if topic.is_empty() {
        return Err(url.fault(
            "the topic is missing",
            "write it as `kafka://topic` or `kafka://host:9092/topic`, or set `kafka.topic` (KAFKA_TOPIC)",
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

fn login_of(url: &Url, login: &str) -> Result<(String, config::Secret), Error> {
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
        let Some(port) = port.filter(|port| *port > 0 && !host.is_empty()) else {
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

fn duration(url: &Url, option: &str, default: Duration) -> Result<Duration, Error> {
    let Some(text) = url.option(option) else { return Ok(default) };
    match config::Duration::from_str(text) {
        Ok(duration) if duration.get() <= MAX_DURATION => Ok(duration.get()),
        Ok(_) => Err(url.fault(format!("`{option}={text}` is too long"), "use at most 4m")),
        Err(error) => Err(url.fault(format!("`{option}={text}`: {error}"), "durations are written as 500ms, 5s, 1m")),
    }
}

fn not_one_of(url: &Url, option: &str, value: &str, known: &[&str]) -> Error {
    url.fault(format!("`{value}` is no {option}"), format!("use one of: {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
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
            ("kafka://orders?linger=5", "linger=5"),
            ("kafka://orders?drain=1h", "at most 4m"),
            ("kafka://orders?session_timeout=6s", "add `protocol=classic`"),
            ("kafka://orders?session_timeout=10ms&protocol=classic", "`session_timeout` is too short"),
            ("kafka://orders?rebalance_timeout=10s", "at least the session's, 45 s"),
            ("kafka://orders?rebalance_timeout=1m&drain=58s", "up to 5 s more"),
            ("kafka://host:0/orders", "`host:0` in the URL is no broker"),
            ("kafka://host:x/orders", "`host:x` in the URL is no broker"),
            ("kafka://bob@host/orders", "a user and a password"),
            ("kafka://host/", "the topic is missing"),
            ("kafka://?group=g", "set `kafka.topic` (KAFKA_TOPIC)"),
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
    fn subscribing_needs_a_group() {
        let url = Url::parse("kafka://orders").unwrap();
        let error = options("kafka://orders").unwrap().expect_group(&url).unwrap_err();
        assert!(error.source().unwrap().to_string().contains("`group` is missing"));
    }
}
