//! What a supervised task is handed.
//!
//! The server starts daemons and the pub/sub router is one, yet neither crate knows the other: they
//! meet in `main`, through the [`Context`] that the one hands out and the other takes. A `Context`
//! tells a task when to stop ([`Shutdown`]), lets it hold readiness back ([`Latch`]), and lets it put
//! up on the [`Board`] what operators should see: dependency checks, debug pages, counts for the stop
//! report, and work to flush after everything has drained. [`Chain`] is how both say what went wrong.
//!
//! Nothing here spawns, binds or logs. The crate depends on tokio alone.

mod board;
mod chain;
mod check;
mod context;
mod page;
mod shutdown;

pub use board::{Board, Flush, Latch, Tally};
pub use chain::Chain;
pub use check::Check;
pub use context::Context;
pub use page::{Page, PageRequest, PageResponse};
pub use shutdown::{Shutdown, Trigger};

/// Any error, owned and sendable.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A boxed future, for the few places where a task's work is stored.
pub type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'static>>;
