//! Layered configuration with types, origins and every problem at once.

mod check;
mod duration;
mod problem;
mod secret;
mod size;

pub use check::{Check, Report};
pub use duration::{Duration, ParseDurationError};
pub use problem::{Error, Problem};
pub use secret::Secret;
pub use size::{ByteSize, ParseByteSizeError};
