//! How long a group waits for its members, and they for what they have begun.

use std::str::FromStr;
use std::time::Duration;

use mainspring_config as config;
use mainspring_pubsub::Error;
use mainspring_pubsub::driver::Url;

use super::Protocol;

/// The client lets its membership lapse when a rebalance takes five minutes.
const MAX_DURATION: Duration = Duration::from_secs(240);
const LEAST_SESSION: Duration = Duration::from_secs(1);
/// The client's own session timeout.
const SESSION: Duration = Duration::from_secs(45);
/// How long a commit may take that others wait for: as long as it does, the group cannot go on.
pub(crate) const COMMIT: Duration = Duration::from_secs(5);

/// What a URL says of them, if it can be so.
pub(super) struct Timeouts {
    pub(super) session: Option<Duration>,
    pub(super) rebalance: Option<Duration>,
    pub(super) drain: Duration,
}

impl Timeouts {
    pub(super) fn of(url: &Url, protocol: Protocol) -> Result<Self, Error> {
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
            // With the other protocol the session is the broker's business.
            if timeout < session && protocol != Protocol::Consumer {
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
        Ok(Self { session: session_timeout, rebalance: rebalance_timeout, drain })
    }
}

/// An option that is a duration, or its default.
pub(super) fn duration(url: &Url, option: &str, default: Duration) -> Result<Duration, Error> {
    let Some(text) = url.option(option) else { return Ok(default) };
    match config::Duration::from_str(text) {
        Ok(duration) if duration.get() <= MAX_DURATION => Ok(duration.get()),
        Ok(_) => Err(url.fault(format!("`{option}={text}` is too long"), "use at most 4m")),
        Err(error) => Err(url.fault(format!("`{option}={text}`: {error}"), "durations are written as 500ms, 5s, 1m")),
    }
}
