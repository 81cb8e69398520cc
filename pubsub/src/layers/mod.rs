//! Tower layers for messages, for [`Router::layer`](crate::Router::layer).
//!
//! | layer | what it does |
//! |---|---|
//! | [`Throttle`] | begins no more than so many messages in a time |
//! | [`Breaker`] | holds messages back while handlers keep failing |
//! | [`Dedup`] | skips messages that have been handled before |
//! | [`CorrelationId`] | has log lines carry the id that a chain of messages shares |
//!
//! Tower's own work as well: `concurrency_limit`, `timeout`, `rate_limit` behind a `buffer`, and whatever else is a
//! `Layer` over a `Service<Request>`. What becomes of a message that fails is nobody's but the
//! [`Policy`](crate::Policy)'s, so the order of layers decides only what they see.
//!
//! Layers that hold messages back do it in `poll_ready`. That is not the handler's time: it neither counts against
//! [`Policy::timeout`](crate::Policy::timeout) nor uses up an attempt, and a stop gives such messages back at once.

mod breaker;
mod correlation;
mod dedup;
mod seen;
mod throttle;

pub use breaker::{Breaker, BreakerService};
pub use correlation::{CorrelationId, CorrelationService};
pub use dedup::{Dedup, DedupService};
pub use seen::{Seen, SeenInMemory};
pub use throttle::{Throttle, ThrottleService};
