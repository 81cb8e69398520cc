//! A delivery that somebody looks at on its way.

use mainspring_pubsub::Delivery;
use mainspring_pubsub::driver::Lease;

/// The same delivery, whose settling is seen by the lease that `lend` makes around it.
pub(crate) fn passed_on<L: Lease + 'static>(inner: Delivery, lend: impl FnOnce(Delivery) -> L) -> Delivery {
    let (message, attempt, position) = (inner.shared(), inner.attempt(), inner.position());
    let mut delivery = Delivery::new(message, Box::new(lend(inner)));
    if let Some(attempt) = attempt {
        delivery = delivery.with_attempt(attempt);
    }
    if let Some(position) = position {
        delivery = delivery.with_position(position);
    }
    delivery
}
