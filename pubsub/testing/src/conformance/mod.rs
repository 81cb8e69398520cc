//! The suite that every broker's driver has to pass.
//!
//! A [`Backend`] says how the broker is reached; [`run`] has each case run against it. What a broker cannot do is
//! skipped by its [`Capabilities`](mainspring_pubsub::driver::Capabilities) or by what the backend offers, with the
//! reason, and never in silence.
//!
//! A driver runs it as a test of its own, with `harness = false`:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use mainspring_testing::conformance::{self, MemoryBackend};
//!
//! fn main() -> ExitCode {
//!     conformance::main(MemoryBackend::new)
//! }
//! ```
//!
//! # What is in it
//! The union of what the suites of other kits ask for and what none of them asks for. Left out are what the types
//! make impossible (settling twice, a context that outlives its message), what this kit does not have (seek,
//! request and reply), and the twin tests of in-process fakes.

mod backend;
mod case;
mod cases;
mod child;
mod main;
mod memory;
mod report;
mod run;
mod stage;
mod url;

pub use backend::{Backend, Need};
pub use case::{Case, cases, find, names};
pub use child::{CHILD, child};
pub use main::main;
pub use memory::MemoryBackend;
pub use report::{CaseReport, Outcome, Report};
pub use run::{Options, Scale, run};
pub use url::UrlBackend;
