//! The memory broker passes the suite.

use std::process::ExitCode;

use mainspring_testing::conformance::{self, MemoryBackend};
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    conformance::main(|| MemoryBackend::new().with_paused_runtime(paused))
}

fn paused() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().start_paused(true).build()
}
