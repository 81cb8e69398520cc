//! The machine's facts, without which a number says little.

use std::io;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

/// What Linux counts in for programs.
pub(crate) const TICK: Duration = Duration::from_millis(10);

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

/// Processor time that a process has used so far, of all its threads; `self` is this one.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(process: &str) -> io::Result<Duration> {
    let mut nanos = 0;
    // A process' own `schedstat` is that of its first thread alone.
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // One that has ended since takes its time with it: benches keep their threads while they measure.
        let stat = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanos += stat.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// The same with the threads that have ended, by ticks of 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn cpu_ticks(process: &str) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the program's name, which may have anything in it, stand its state and, eleven fields on, the two times.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
    let ticks = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>();
    Ok(TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident(process: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
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
