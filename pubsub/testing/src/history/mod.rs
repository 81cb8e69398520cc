//! What happened to every message, and whether it was right.
//!
//! A [`Journal`] is written while a test runs: publishers through a [`Producer`], subscribers through
//! [`Journal::watch`], handlers by [`Journal::handling`]. [`check`] reads it afterwards and says what was lost,
//! unexpected, altered, duplicated, reordered, settled too early or committed too far, each with the evidence in words.
//!
//! ```
//! use mainspring_pubsub::{Message, memory};
//! use mainspring_testing::history::{Journal, Rules};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = memory::Broker::new(memory::Config::default());
//! let journal = Journal::new();
//! let mut inbox = journal.watch(broker.subscriber("orders", "ship"), "ship", "reader 1");
//! let producer = journal.producer("web");
//! producer.publish(&broker.publisher("orders"), Message::new("tea").with_key("A1")).await?;
//!
//! let delivery = inbox.next().await?.ok_or("closed")?;
//! journal.handling(delivery.message()).ended(true);
//! delivery.ack().await?;
//! assert!(journal.check(&Rules::default()).is_clean());
//! # Ok(()) }
//! ```

mod check;
mod event;
mod finding;
mod journal;
mod ledger;
mod watched;

pub use check::{Order, Rules, check};
pub use event::{Event, Settlement, Tag, What};
pub use finding::{Finding, Kind, Verdict};
pub use journal::{Handling, Journal, Producer};
