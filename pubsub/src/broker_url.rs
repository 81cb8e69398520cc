//! A broker URL as a value of the configuration.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;

use mainspring_config::{Error as ConfigError, Report, redact_url};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::url::KEY;
use crate::{Brokers, Error};

/// A broker URL as a field of a configuration: `memory://orders?group=ship`, `kafka://orders?group=ship`.
///
/// It is a text that is known to be a URL, so that a daemon's configuration is checked for it as for anything else: a
/// scheme that nobody knows, a driver that is not in the program, an option that the driver does not have are faults
/// with key, source and hint, beside all others, and `--check-config` finds them. A plain `String` can be opened as
/// well; what is wrong with it is then found out by opening it.
///
/// The empty URL, which is the default, means that somebody has to set one.
///
/// `Display`, `Debug`, `--print-config` and messages hide passwords; the text that it derefs to has them.
///
/// ```
/// use mainspring_pubsub::{BrokerUrl, Brokers, BrokersConfig};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default)]
/// struct Config {
///     topic: BrokerUrl,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), mainspring_pubsub::Error> {
/// let config = Config { topic: "memory://orders?group=ship".into() };
/// let brokers = Brokers::new(&BrokersConfig::default())?;
/// let inbox = brokers.subscriber(&config.topic).await?;
/// # drop(inbox);
/// # Ok(()) }
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// The name by which the configuration's loader finds such values, wherever they stand.
    pub const SECTION: &'static str = "broker-url";

    /// Reports what keeps `brokers` from opening it. Nothing is connected to.
    pub fn check(&self, brokers: &Brokers, report: &mut Report) {
        if let Err(error) = brokers.check(self) {
            self.report("", &error, report);
        }
    }

    /// Reports, of the value at `key`, what keeps `brokers` from subscribing to it though it may be published to: see
    /// [`Brokers::check_subscriber`]. What [`check`](Self::check) reports is not said twice.
    pub fn check_subscriber(&self, key: &str, brokers: &Brokers, report: &mut Report) {
        if let (Ok(()), Err(error)) = (brokers.check(self), brokers.check_subscriber(self)) {
            self.report(key, &error, report);
        }
    }

    fn report(&self, at: &str, error: &Error, report: &mut Report) {
        let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
        match causes.find_map(|cause| cause.downcast_ref::<ConfigError>()) {
            Some(fault) => {
                for problem in fault.problems() {
                    let key = if problem.key == KEY { String::new() } else { format!("{}: ", problem.key) };
                    let what = format!("`{self}`: {key}{}", problem.what);
                    report.fault(at, what, problem.hint.clone().unwrap_or_default());
                }
            }
            None => report.fault(at, format!("`{self}`: {error}"), ""),
        }
    }
}

impl Deref for BrokerUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for BrokerUrl {
    fn as_ref(&self) -> &str {
        self
    }
}

impl From<&str> for BrokerUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl From<String> for BrokerUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.0))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

impl JsonSchema for BrokerUrl {
    fn schema_name() -> Cow<'static, str> {
        "BrokerUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "examples": ["memory://orders?group=ship"],
            "x-section": Self::SECTION,
        })
    }
}
