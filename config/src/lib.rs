//! Layered configuration with types, origins and every problem at once.

mod check;
mod coerce;
mod duration;
mod env;
mod exit;
mod file;
mod finish;
mod flags;
mod leaf;
mod loaded;
mod loader;
mod merge;
mod path;
mod print;
mod problem;
mod raw;
mod schema;
mod secret;
mod settle;
mod size;
mod suggest;
mod vault;

pub use check::{Check, Report};
pub use duration::{Duration, ParseDurationError};
pub use exit::Exit;
pub use loaded::Loaded;
pub use loader::Loader;
pub use problem::{Error, Problem};
pub use secret::Secret;
pub use size::{ByteSize, ParseByteSizeError};
