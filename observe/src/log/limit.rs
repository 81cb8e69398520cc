//! Keeps one place in the code from filling the log.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

/// Limits events by the place that they come from: so many a second, and twice as many at once.
///
/// A warning or an error counts whatever it says: it is of a kind with the one before. An `info` event counts when it
/// says the same as the one before; others of the place are news, each of them. `debug` and `trace` are never limited:
/// somebody has asked for all of them.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: f64,
    places: Mutex<HashMap<Place, Bucket>>,
    suppressed: Counter,
}

/// Where an event comes from. All events of the `log` crate come from one place, so those are told apart by what they
/// say of themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Callsite(Identifier),
    Foreign(u64),
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    /// What the last event said.
    said: u64,
    suppressed: u64,
}

/// More places than a program has; names that come from outside must not use up memory.
const MOST: usize = 8192;

impl Limiter {
    /// `per_second` 0 limits nothing.
    pub(super) fn new(per_second: u32, suppressed: Counter) -> Self {
        Self { per_second: f64::from(per_second), places: Mutex::default(), suppressed }
    }

    /// Whether an event may be written: then answers how many of its place were not since the last one that was. `said`
    /// is the [`fingerprint`] of what it says.
    pub(super) fn admit(&self, place: Place, level: Level, said: u64, now: Instant) -> Option<u64> {
        if self.per_second == 0.0 || level > Level::INFO {
            return Some(0);
        }
        let burst = self.per_second * 2.0;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST && !places.contains_key(&place) {
            places.clear();
        }
        let new = Bucket { tokens: burst, filled: now, said: !said, suppressed: 0 };
        let bucket = places.entry(place).or_insert(new);
        let repeats = level < Level::INFO || bucket.said == said;
        bucket.said = said;
        let since = now.saturating_duration_since(bucket.filled);
        bucket.tokens = (bucket.tokens + since.as_secs_f64() * self.per_second).min(burst);
        bucket.filled = now;
        if repeats && bucket.tokens < 1.0 {
            bucket.suppressed += 1;
            self.suppressed.inc();
            return None;
        }
        if repeats {
            bucket.tokens -= 1.0;
        }
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

impl Place {
    /// The place of an event; `foreign` if it came through the `log` crate.
    pub(super) fn of(metadata: &Metadata<'_>, foreign: bool) -> Self {
        if !foreign {
            return Self::Callsite(metadata.callsite());
        }
        let mut hasher = DefaultHasher::new();
        (metadata.target(), metadata.file(), metadata.line(), metadata.level().as_str()).hash(&mut hasher);
        Self::Foreign(hasher.finish())
    }
}

/// Tells texts apart that follow a text of the fingerprint `before`.
pub(super) fn fingerprint(before: u64, text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, text).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limiter() -> (Limiter, Counter) {
        let counter = Counter::default();
        (Limiter::new(10, counter.clone()), counter)
    }

    fn say(limiter: &Limiter, level: Level, said: &str, now: Instant) -> Option<u64> {
        limiter.admit(Place::Foreign(1), level, fingerprint(0, said.as_bytes()), now)
    }

    #[test]
    fn a_burst_passes_then_so_many_a_second_and_the_rest_is_counted() {
        let (limiter, counter) = limiter();
        let now = Instant::now();
        let passed = (0..100).filter(|n| say(&limiter, Level::ERROR, &format!("peer {n}"), now).is_some()).count();
        assert_eq!((passed, counter.get()), (20, 80));
        let later = now + Duration::from_millis(501);
        let after: Vec<_> = (0..7).map(|_| say(&limiter, Level::WARN, "peer", later)).collect();
        assert_eq!(after, [Some(80), Some(0), Some(0), Some(0), Some(0), None, None]);
        assert_eq!(limiter.admit(Place::Foreign(2), Level::ERROR, 0, later), Some(0), "another place");
    }

    #[test]
    fn an_info_event_is_limited_only_when_it_repeats_itself() {
        let (limiter, _) = limiter();
        let now = Instant::now();
        assert!((0..1000).all(|n| say(&limiter, Level::INFO, &format!("order {n} shipped"), now).is_some()));
        assert_eq!((0..100).filter(|_| say(&limiter, Level::INFO, "tick", now).is_some()).count(), 21);
        assert_eq!(say(&limiter, Level::INFO, "news", now), Some(79));
    }

    #[test]
    fn what_was_asked_for_is_not_limited_and_neither_is_anything_at_zero() {
        let (limiter, _) = limiter();
        let now = Instant::now();
        assert!((0..1000).all(|_| say(&limiter, Level::DEBUG, "tick", now) == Some(0)));
        let off = Limiter::new(0, Counter::default());
        assert!((0..1000).all(|_| say(&off, Level::ERROR, "tick", now) == Some(0)));
    }

    #[test]
    fn places_that_come_from_outside_are_bounded() {
        let (limiter, _) = limiter();
        for place in 0..3 * MOST as u64 {
            limiter.admit(Place::Foreign(place), Level::ERROR, 0, Instant::now());
        }
        assert!(limiter.places.lock().unwrap().len() <= MOST);
    }
}
