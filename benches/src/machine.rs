//! The machine's facts, without which a number says little.

use std::process::Command;

use serde::Serialize;

/// What the numbers were measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// How many of its threads this process may use.
    pub cores: usize,
    /// Linux' version.
    pub kernel: String,
    /// The compiler's.
    pub rustc: String,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown processor");
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cpu: cpu.to_owned(), cores, kernel: kernel.trim().to_owned(), rustc: first_line("rustc", "--version") }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, kernel, rustc } = self;
        write!(f, "{cpu}, {cores} cores, Linux {kernel}, {rustc}")
    }
}

/// What instruction counts depend on besides the code.
pub fn toolchain() -> String {
    let Machine { cpu, rustc, .. } = Machine::here();
    format!("{rustc}, {}, {cpu}", first_line("ldd", "--version"))
}

fn first_line(program: &str, arg: &str) -> String {
    let output = Command::new(program).arg(arg).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}
