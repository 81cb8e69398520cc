//! How many connections this process and its children may have.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set in the process that has raised its limit, so that it does so once.
const RAISED: &str = "MAINSPRING_BENCH_RAISED";

/// Starts this program anew with as many descriptors as the system lets it have, unless it has them.
///
/// # Errors
/// When the program cannot be started.
pub fn raise() -> io::Result<()> {
    let (soft, hard) = descriptors();
    if soft == hard || std::env::var_os(RAISED).is_some() {
        return Ok(());
    }
    let mut again = Command::new("sh");
    again.args(["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$@\"", "sh"]).arg(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env(RAISED, "1").exec())
}

/// Whether `connections` fit; says why not.
pub fn allow(connections: usize) -> Result<(), String> {
    let (soft, _) = descriptors();
    if soft >= connections + 100 {
        return Ok(());
    }
    Err(format!("{connections} connections need more than the {soft} descriptors that `ulimit -Hn` allows"))
}

fn descriptors() -> (usize, usize) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().unwrap_or(usize::MAX));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
