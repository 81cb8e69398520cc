//! What tests of publishers, subscribers, handlers and brokers use.
//!
//! - For services: [`Recorder`] records what is published and fails as told; [`Script`] is a subscriber that says its
//!   lines; [`Harness`] is a broker in the test that waits for facts instead of sleeping. All run on a paused clock.
//! - For anyone: [`history`] writes down what happened to every message, and says what was wrong about it.
//! - For brokers: [`conformance`] is the suite that every driver has to pass, in one call.
//!
//! ```
//! use mainspring_pubsub::{Failure, Json, Message, Router};
//! use mainspring_testing::{Harness, Tally};
//!
//! async fn ship(Json(quantity): Json<u32>) -> Result<(), Failure> {
//!     if quantity > 1000 { Err(Failure::reject("more than we have")) } else { Ok(()) }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let harness = Harness::new();
//! let inbox = harness.subscriber("orders", "ship");
//! let router = harness.start(Router::new().route("ship", inbox, ship));
//! for body in ["2", "3", "5000"] {
//!     harness.publish("orders", Message::new(body)).await;
//! }
//! assert_eq!(harness.settled().await, Tally { acked: 2, rejected: 1, ..Tally::default() });
//! assert_eq!(harness.published("orders.dead").len(), 1);
//! router.stop().await;
//! # }
//! ```

pub mod conformance;
mod harness;
pub mod history;
mod observed;
mod passed_on;
mod recorder;
mod running;
mod script;

pub use harness::{Harness, Tally};
pub use recorder::Recorder;
pub use running::Running;
pub use script::{Script, Settled, Settlements};
