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
    /// Boxed, because most brokers lend without an end, and a message is moved a few times.
    loan: Option<Box<Loan>>,
}

/// A loan that ends by itself.
struct Loan {
    /// When the broker takes the message back.
    expires: Option<Instant>,
    /// When to have it extended, and by how much. `None` once that is never again.
    renew: Option<Instant>,
    by: Duration,
    /// From then on it is not extended any more.
    until: Instant,
}

impl Job {
    #[inline]
    pub(super) fn new(mut delivery: Delivery, seq: u64, received: Instant, max_lease: Duration) -> Self {
        delivery.release_on_drop();
        let message = delivery.message();
        let (key, bytes) = (message.key.as_deref().map(hash_key), message.size());
        let attempt = delivery.attempt().unwrap_or(1);
        let loan = delivery.lease().map(|expires| Box::new(Loan::new(expires, received, max_lease)));
        Self { delivery, attempt, seq, key, bytes, received, loan }
    }

    /// When the broker takes the message back.
    pub(super) fn lease(&self) -> Option<Instant> {
        self.loan.as_ref()?.expires
    }

    /// When the lease has to be extended.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.loan.as_ref()?.renew
    }

    /// Has the lease extended if it is time to; answers when it is time again.
    pub(super) fn keep(&mut self, now: Instant) -> Option<Instant> {
        let loan = self.loan.as_mut()?;
        if loan.renew.is_some_and(|at| at <= now) {
            // If this fails, settling will say so.
            drop(self.delivery.extend(loan.by));
            loan.expires = self.delivery.lease();
            loan.renew = Some(now + loan.by / 2).filter(|at| *at < loan.until);
        }
        loan.renew
    }
}

impl Loan {
    /// Half of a loan's length from now is when it is extended, for as long again. One that is almost over is no reason
    /// to do so without pause.
    fn new(expires: Instant, now: Instant, most: Duration) -> Self {
        let (by, until) = ((expires - now).max(LEAST_LEASE), now + most);
        Self { expires: Some(expires), renew: Some(now + by / 2).filter(|at| *at < until), by, until }
    }
}
