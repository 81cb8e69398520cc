//! The gates: what a request and a message cost, in instructions and allocations, against the numbers in `gates.toml`.
//!
//! Instructions and not time, because they come out the same on a busy machine. A case is a process under callgrind
//! that writes down, at each [`mark`], what was executed since the last one; the fewest of a few equal windows count.

mod callgrind;
mod case;
mod table;

pub use callgrind::measure;
pub use case::{Case, subject};
pub use table::{Cost, Table, Verdict};

/// What the allocator has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Allocations, growing ones included.
    pub allocations: usize,
    /// Bytes.
    pub bytes: usize,
}

/// Callgrind writes its counts down, and begins anew, when this function is entered.
#[inline(never)]
pub fn mark(used: fn() -> Used) -> Used {
    std::hint::black_box(used)()
}
