//! A message on its way through a route.

use crate::Delivery;
use crate::memory::{KeyHash, hash_key};

/// A message on its way through the route. Dropping it gives it back.
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pub(super) attempt: u32,
    /// Its place in the order of arrival.
    pub(super) seq: u64,
    pub(super) key: Option<KeyHash>,
    pub(super) bytes: usize,
}

/// What a job leaves behind on the board while its delivery is being settled.
pub(super) struct Claim {
    pub(super) key: Option<KeyHash>,
    pub(super) bytes: usize,
}

impl Job {
    pub(super) fn new(delivery: Delivery) -> Self {
        let delivery = delivery.release_on_drop();
        let message = delivery.message();
        let (key, bytes) = (message.key.as_deref().map(hash_key), message.size());
        Self { attempt: delivery.attempt().unwrap_or(1), delivery, seq: 0, key, bytes }
    }

    /// Parts the delivery, to be settled, from what the board still knows of it.
    pub(super) fn part(self) -> (Delivery, Claim) {
        (self.delivery, Claim { key: self.key, bytes: self.bytes })
    }
}
