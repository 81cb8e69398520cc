//! Profiles: where CPU time goes, and who holds the memory.
//!
//! - [`cpu`]: samples the stacks of running threads.
//! - [`heap`]: what jemalloc has sampled; needs the feature `jemalloc`.
//! - [`Profile`]: stacks with values, written as pprof's `profile.proto`, as folded stacks, or as a flame graph.
//! - [`threads`] and [`symbolize`]: what a person, or a tool with bare addresses, asks for beside them.
//!
//! The interval timer and the allocator belong to the process, so [`cpu`] runs once at a time, whoever asks.

pub mod cpu;
mod encode;
mod flame;
pub mod heap;
mod sampler;
mod stacks;
mod symbol;
mod table;
mod thread;

pub use stacks::Profile;
pub use symbol::{Frame, symbolize};
pub use thread::{Thread, threads};

/// Why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// One is being taken.
    #[error("another profile is being taken; there is one profiler a process")]
    Busy,
    /// This build cannot take any; the text says what a build needs that can.
    #[error("{0}")]
    Impossible(&'static str),
    /// It should have worked; the text says what is in the way.
    #[error("{0}")]
    Failed(String),
}
