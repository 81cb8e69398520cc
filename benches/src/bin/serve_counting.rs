//! One arm, with an allocator that counts.

use std::alloc::System;

use mainspring_benches::gate::Used;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    mainspring_benches::arms::main(|| {
        let stats = ALLOCATOR.stats();
        Used { allocations: stats.allocations + stats.reallocations, bytes: stats.bytes_allocated }
    });
}
