//! What becomes of a message whose handler fails.

use std::time::Duration;

/// The one failure policy of a router, for all its routes.
///
/// A message whose handler returns an error, panics or takes too long is tried again after a pause; one that has used
/// up its attempts, or is rejected, becomes a dead letter. While the daemon stops, no attempt is used up and nothing
/// becomes a dead letter: such messages go back to the broker as they came.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// How often a message is tried in all, the first time included. Default 5. See [`Attempt`](crate::Attempt) for what
    /// counts on Kafka.
    pub attempts: u32,
    /// How long to wait between attempts. Default from 200 ms to 30 s, with full jitter.
    pub backoff: Backoff,
    /// How long a handler may take before it is dropped and the attempt counts as failed. Default 30 s. The time begins
    /// when the layers that hold messages back, such as a limit on concurrency, have let the message in.
    pub timeout: Duration,
    /// What becomes of a message that an extractor cannot read. Default [`Undecodable::Reject`].
    pub undecodable: Undecodable,
    /// How long the lease of a message is kept in all, from its receipt: while it waits, is handled, or pauses between
    /// attempts here. After that it is not extended any more; the broker takes the message back, and settling it here
    /// answers [`Lost`](crate::ErrorKind::Lost). Default 1 h. Only for brokers that lend for a time:
    /// [`Capabilities::lease`](crate::driver::Capabilities::lease).
    pub max_lease: Duration,
}

/// What becomes of a message that an extractor cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undecodable {
    /// It becomes a dead letter at once: trying again would not change its bytes.
    Reject,
    /// It is tried again like any other, for roll-outs in which newer instances may know how to read it.
    Retry,
}

/// Pauses that double, up to a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
    /// Whether each pause is drawn evenly from zero to its value, so that what failed together does not come back
    /// together.
    pub jitter: bool,
}

impl Policy {
    /// Sets how often a message is tried in all.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets how long to wait between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets how long a handler may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets what becomes of messages that cannot be read.
    pub fn undecodable(mut self, undecodable: Undecodable) -> Self {
        self.undecodable = undecodable;
        self
    }

    /// Sets how long the lease of a message is kept in all.
    pub fn max_lease(mut self, max_lease: Duration) -> Self {
        self.max_lease = max_lease;
        self
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 5,
            backoff: Backoff::exponential(Duration::from_millis(200), Duration::from_secs(30)),
            timeout: Duration::from_secs(30),
            undecodable: Undecodable::Reject,
            max_lease: Duration::from_secs(60 * 60),
        }
    }
}

impl Backoff {
    /// Pauses that double from `first` to `max`, with full jitter.
    pub fn exponential(first: Duration, max: Duration) -> Self {
        Self { first, max, jitter: true }
    }

    /// Always the same pause.
    pub fn fixed(pause: Duration) -> Self {
        Self { first: pause, max: pause, jitter: false }
    }

    /// Takes the jitter away: pauses are then exact, for tests.
    pub fn without_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// The pause after attempt number `attempt`, which is 1 for the first.
    pub fn pause(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let pause = self.first.saturating_mul(1 << doublings).min(self.max);
        if self.jitter { pause.mul_f64(fastrand::f64()) } else { pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(10)).without_jitter();
        let pauses: Vec<_> = [1, 2, 3, 4, 5, 40, u32::MAX].map(|attempt| backoff.pause(attempt).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10, 10]);
    }

    #[test]
    fn jitter_draws_from_the_whole_range() {
        let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(1));
        let pauses: Vec<_> = (0..1000).map(|_| backoff.pause(1).as_secs_f64()).collect();
        assert!(pauses.iter().all(|pause| (0.0..1.0).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause < 0.1) && pauses.iter().any(|pause| *pause > 0.9));
    }
}
