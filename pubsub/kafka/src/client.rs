//! What consumers and producers have in common: their connection, and what they say about it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mainspring_pubsub::{Error, ErrorKind};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tracing::{debug, error, info, warn};

use crate::SYSTEM;
use crate::error as errors;
use crate::options::Options;

/// Long enough for a distant broker; the default of 30 s hides a port that accepts and never answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a broker may leave a question unanswered before its connection is given up. The default of 60 s is how long
/// everybody would wait for a broker that hangs, though another has taken over within seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that has lost its brokers may pause between two attempts.
const MAX_RECONNECT_PAUSE: Duration = Duration::from_secs(2);

/// What to look at when a connection comes about and nothing comes of it.
const PORT: &str = "is this a Kafka port, and do it and `brokers.kafka.security` agree on TLS and passwords?";

/// The client's advice when an answer is too long, for a setting that is not ours to offer.
const MORE: &str = ": increase receive.message.max.bytes";

/// Settings of every client.
pub(crate) fn config(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", &options.client_id)
        .set("socket.connection.setup.timeout.ms", millis(CONNECT_TIMEOUT))
        .set("socket.timeout.ms", millis(ANSWER_TIMEOUT))
        .set("reconnect.backoff.max.ms", millis(MAX_RECONNECT_PAUSE))
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    options.security.apply(&mut config);
    config
}

/// A duration as the client wants it.
pub(crate) fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// What the client said last about its connections. Kept because the calls that fail for want of one only say that
/// they did.
#[derive(Debug, Default)]
pub(crate) struct Cause(Mutex<Option<(Code, String)>>);

impl Cause {
    /// Notes what the client says. That all brokers are down is a consequence, and comes many times a second.
    pub(crate) fn note(&self, cause: &KafkaError, reason: &str) {
        let Some(code) = cause.rdkafka_error_code() else { return };
        debug!(error = %cause, reason, "kafka client");
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if code != Code::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }

    /// The brokers answer again.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether trying on is no use.
    pub(crate) fn refused(&self) -> Option<Error> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let final_one = |(code, reason): &&(Code, String)| {
            errors::kind(*code) == ErrorKind::PermissionDenied || distrusts(reason) || is_distrusted(reason)
        };
        last.as_ref().filter(final_one).map(error_of)
    }

    /// The last cause as an error; without one, that nobody answers.
    pub(crate) fn error(&self, brokers: &str) -> Error {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unanswered = || {
            let what = format!("no answer from {brokers}; {PORT}");
            errors::error(ErrorKind::Unavailable, "connect", what)
        };
        last.as_ref().map_or_else(unanswered, error_of)
    }
}

fn error_of((code, reason): &(Code, String)) -> Error {
    let kind = match errors::kind(*code) {
        ErrorKind::Other => ErrorKind::Unavailable,
        kind => kind,
    };
    let what = match code {
        Code::AllBrokersDown => format!("{reason}; {PORT}"),
        _ if distrusts(reason) => format!("{reason}; `ssl.ca.location` is called `brokers.kafka.tls.ca` here"),
        _ if is_distrusted(reason) => {
            format!("{reason}; the broker does not take our certificate: see `brokers.kafka.tls.cert`")
        }
        _ if reason.contains("closed by peer") => format!("{reason}; {PORT}"),
        // The client takes the first bytes of whatever is said there for a length, and wants to be allowed more.
        _ if reason.contains(MORE) => format!("{}; {PORT}", reason.replace(MORE, "")),
        _ => reason.clone(),
    };
    errors::error(kind, "connect", what)
}

/// Whether we do not trust the broker's certificate.
fn distrusts(reason: &str) -> bool {
    reason.contains("certificate could not be verified")
}

/// Whether the broker does not trust ours, or misses it.
fn is_distrusted(reason: &str) -> bool {
    reason.contains("SSL alert") && reason.contains("certificate")
}

/// Passes on what the client logs.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            error!(system = SYSTEM, facility, "{text}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => warn!(system = SYSTEM, facility, "{text}"),
        RDKafkaLogLevel::Notice => info!(system = SYSTEM, facility, "{text}"),
        // A lost connection is reported three times a second there.
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(system = SYSTEM, facility, "{text}"),
    }
}
