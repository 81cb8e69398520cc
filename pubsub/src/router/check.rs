//! Settings that cannot work together are refused before anything is received.

use std::time::Duration;

use super::pending::Pending;
use super::settings::Settings;
use crate::batch::Batching;
use crate::driver::{Capabilities, Endpoint};
use crate::{Error, Policy, outbox};

/// Longer than anybody means, and short enough for every clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Longer than this is no batch but a schedule.
const LONGEST_LINGER: Duration = Duration::from_secs(60);

/// Each message that a handler may have at once costs memory, whether or not it comes.
const MOST_LANES: usize = 100_000;

/// What is wrong whatever the broker.
pub(super) fn limits(settings: &Settings) -> Result<(), Error> {
    let (policy, backoff) = (&settings.policy, &settings.policy.backoff);
    let (first, max, timeout) = (backoff.first, backoff.max, policy.timeout);
    if settings.concurrency == 0 {
        return Err(fault("Router::concurrency", "no message would ever be handled".to_owned(), "use at least 1"));
    }
    if settings.concurrency > MOST_LANES {
        let what = format!("{} messages at once are more than {MOST_LANES}", settings.concurrency);
        return Err(fault("Router::concurrency", what, "use what the machine and those behind it can bear"));
    }
    if settings.max_bytes == 0 {
        return Err(fault(
            "Router::max_bytes",
            "no message would ever be received".to_owned(),
            "the default is 64 MiB",
        ));
    }
    if policy.attempts == 0 {
        let hint = "use 1 to try each message once, more to try again";
        return Err(fault("Policy::attempts", "no message would ever be handled".to_owned(), hint));
    }
    if timeout.is_zero() {
        return Err(fault("Policy::timeout", "every handler would time out".to_owned(), "the default is 30 s"));
    }
    if timeout > LONGEST {
        let what = format!("{timeout:?} is no limit at all: a handler that hangs would hold its key until the stop");
        return Err(fault("Policy::timeout", what, "use what the slowest good handler needs, at most a year"));
    }
    if policy.max_lease > LONGEST {
        let what = format!(
            "{:?} is no limit at all: a message that is forgotten here would never come back",
            policy.max_lease
        );
        return Err(fault("Policy::max_lease", what, "the default is an hour; use at most a year"));
    }
    if first > max {
        let what = format!("the first pause, {first:?}, is longer than the longest, {max:?}");
        return Err(fault("Policy::backoff", what, "raise `Backoff::max` to at least `Backoff::first`"));
    }
    if max > LONGEST {
        let what = format!("a message would wait {max:?} for its next attempt");
        return Err(fault("Policy::backoff", what, "use a `Backoff::max` of at most a year"));
    }
    Ok(())
}

/// What cannot work with the broker that a route receives from.
pub(super) fn route<S>(route: &Pending<S>, settings: &Settings) -> Result<(), Error> {
    let (name, from) = (route.name, &route.from);
    transactions(route, settings)?;
    let linger = match &route.batching {
        Some(batching) => batch(name, batching, settings)?,
        None => Duration::ZERO,
    };
    let (source, capabilities, policy) = (from.endpoint(), from.capabilities(), &settings.policy);
    if let Some(to) = &settings.dead_letter {
        let to = to.endpoint();
        if (to.system, &to.destination) == (source.system, &source.destination) {
            let what = format!("route `{name}` would receive its own dead letters from {}, for ever", at(source));
            let hint = "publish dead letters to a topic of their own";
            return Err(fault("Router::dead_letter", what, hint));
        }
    }
    let kept = Some(policy.max_lease).filter(|_| capabilities.lease.is_some() && capabilities.extend);
    let (longest, lends, longer) = match (longest_loan(&capabilities), kept) {
        (Some(lent), kept) if kept.is_none_or(|kept| lent <= kept) => {
            let extended =
                if capabilities.extend { "however often that is extended" } else { "which cannot be extended" };
            let lends = format!("{} lends it for {lent:?} at most, {extended}", at(source));
            (lent, lends, "have the broker lend for longer")
        }
        (_, Some(kept)) => (kept, format!("its lease is kept for {kept:?} at most"), "raise `Policy::max_lease`"),
        (_, None) => return Ok(()),
    };
    if policy.timeout.saturating_add(linger) > longest {
        let waits =
            if linger.is_zero() { String::new() } else { format!(" after {linger:?} of waiting for its batch") };
        let what = format!(
            "route `{name}`: a handler may take {:?}{waits} over a message, and {lends}: it would be handled twice",
            policy.timeout
        );
        let hint = format!("set a timeout of at most {:?}, or {longer}", longest.saturating_sub(linger));
        return Err(fault("Policy::timeout", what, &hint));
    }
    let total = retry_total(policy, linger);
    if !capabilities.nack_delay && total > longest {
        let what = format!(
            "route `{name}`: {} attempts may take {total:?} in all, during which the router holds the message, and {lends}",
            policy.attempts
        );
        let hint = format!("lower the attempts, `Backoff::max` or the timeout, or {longer}");
        return Err(fault("Policy::attempts", what, &hint));
    }
    Ok(())
}

/// What is wrong with a route's batches; answers how long a message may wait for its batch.
fn batch(name: &str, batching: &Batching, settings: &Settings) -> Result<Duration, Error> {
    let Batching { max, linger } = *batching;
    if max == 0 {
        let what = format!("route `{name}`: a batch would never have a message");
        return Err(fault("Batching::up_to", what, "use at least 1"));
    }
    if linger > LONGEST_LINGER {
        let what = format!("route `{name}`: a message would wait {linger:?} for its batch");
        return Err(fault("Batching::linger", what, "use at most a minute: a handler gets what is there by then"));
    }
    let (at_once, messages) = (settings.concurrency, settings.lanes(Some(batching)));
    if messages > MOST_LANES {
        let what = format!("route `{name}`: {at_once} batches of {max} messages are more than {MOST_LANES} at once");
        return Err(fault("Router::concurrency", what, "for batches it counts batches: a few at once will do"));
    }
    Ok(linger)
}

/// Whether a route can be what it is to be: exactly once, or not.
fn transactions<S>(route: &Pending<S>, settings: &Settings) -> Result<(), Error> {
    let Pending { name, from, outbox, .. } = route;
    let source = from.endpoint();
    if !settings.exactly_once {
        if *outbox {
            let what = format!("the handler of route `{name}` takes an `Outbox`, and the router is not exactly once");
            return Err(fault("Router::exactly_once", what, "call it, or publish with a `Publisher`"));
        }
        return Ok(());
    }
    if !from.capabilities().transactions {
        let what = format!(
            "route `{name}`: {} has no transactions, so that publishing and acking are two steps, and a crash between \
             them would have messages published twice",
            at(source)
        );
        let hint = "receive from a broker that has transactions, such as kafka, or do without it and publish with a `Publisher`";
        return Err(fault("Router::exactly_once", what, hint));
    }
    if let Some(to) = &settings.dead_letter
        && let Err(error) = outbox::fits(source, &to.endpoint())
    {
        let what = format!(
            "route `{name}`: a dead letter is published in one transaction with its message's ack, and {error}"
        );
        return Err(fault(
            "Router::dead_letter",
            what,
            "publish dead letters to the broker that the messages come from",
        ));
    }
    Ok(())
}

pub(super) fn fault(key: &str, what: String, hint: &str) -> Error {
    Error::config("route", mainspring_config::Error::one(key, "code", what, hint))
}

pub(super) fn at(source: &Endpoint) -> String {
    source.to_string()
}

/// How long the broker lends a message; `None` when there is no end.
fn longest_loan(capabilities: &Capabilities) -> Option<Duration> {
    let once = capabilities.lease.filter(|_| !capabilities.extend);
    once.into_iter().chain(capabilities.limits.lease).min()
}

/// The longest that all attempts and the pauses between them may take.
fn retry_total(policy: &Policy, linger: Duration) -> Duration {
    let exact = policy.backoff.clone().without_jitter();
    let handling = policy.timeout.saturating_add(linger).saturating_mul(policy.attempts);
    // From some attempt on every pause is the longest one.
    let (each, rest) = ((policy.attempts - 1).min(64), policy.attempts.saturating_sub(65));
    let pauses = (1..=each).fold(Duration::ZERO, |sum, attempt| sum.saturating_add(exact.pause(attempt)));
    handling.saturating_add(pauses).saturating_add(exact.max.saturating_mul(rest))
}
