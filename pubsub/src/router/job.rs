//! A message on its way through a route.

use std::time::Duration;

use tokio::time::Instant;

use crate::Delivery;
use crate::memory::{KeyHash, hash_key};

/// The shortest lease that is worth renewing.
const LEAST_LEASE: Duration = Duration::from_millis(100);

/// A message on its way through the route. Dropping it gives it back.
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pub(super) attempt: u32,
    /// Its place in the order of arrival.
    pub(super) seq: u64,
    pub(super) key: Option<KeyHash>,
    pub(super) bytes: usize,
    pub(super) received: Instant,
    /// When the broker takes the message back.
    pub(super) lease: Option<Instant>,
    /// When to have the lease extended, and by how much.
    pub(super) renew: Option<(Instant, Duration)>,
}

/// What a job leaves behind on the board while its delivery is being settled.
pub(super) struct Claim {
    pub(super) key: Option<KeyHash>,
    pub(super) bytes: usize,
}

impl Job {
    pub(super) fn new(delivery: Delivery, received: Instant) -> Self {
        let delivery = delivery.release_on_drop();
        let message = delivery.message();
        let (key, bytes) = (message.key.as_deref().map(hash_key), message.size());
        let attempt = delivery.attempt().unwrap_or(1);
        let lease = delivery.lease();
        let renew = lease.map(|expires| half_of(received, expires - received));
        Self { delivery, attempt, seq: 0, key, bytes, received, lease, renew }
    }

    /// Has the lease extended if it is time to; answers when it is time again.
    pub(super) fn keep(&mut self, now: Instant) -> Option<Instant> {
        let (due, by) = self.renew?;
        if due > now {
            return Some(due);
        }
        // If this fails, settling will say so.
        drop(self.delivery.extend(by));
        self.lease = self.delivery.lease();
        let next = half_of(now, by);
        self.renew = Some(next);
        Some(next.0)
    }

    /// Parts the delivery, to be settled, from what the board still knows of it.
    pub(super) fn part(self) -> (Delivery, Claim) {
        (self.delivery, Claim { key: self.key, bytes: self.bytes })
    }
}

/// Half of a lease's length from now is when it is renewed, for as long again. One that is almost over is no reason to
/// renew without pause.
fn half_of(now: Instant, length: Duration) -> (Instant, Duration) {
    let length = length.max(LEAST_LEASE);
    (now + length / 2, length)
}
