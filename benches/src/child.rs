//! An arm in a process of its own, so that what it uses can be told apart.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::arms::Arm;
use crate::machine;

/// A running arm. Dropping it ends it.
#[derive(Debug)]
pub struct Child {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where it serves.
    pub addr: SocketAddr,
    /// Where its admin listener is, if it has one.
    pub admin: Option<SocketAddr>,
}

impl Child {
    /// Starts `arm` with the binary `program`, which lies beside this one, on the first processor where `taskset`
    /// exists.
    pub fn start(program: &str, arm: Arm) -> io::Result<Self> {
        let binary = beside(program)?;
        let mut command = if Path::new("/usr/bin/taskset").exists() {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(binary);
            command
        } else {
            Command::new(binary)
        };
        command.arg(arm.name());
        Self::spawn(command)
    }

    /// Starts `arm` where the system likes, so that the admin listener's thread need not wait for the other one.
    pub fn unpinned(arm: Arm) -> io::Result<Self> {
        let mut command = Command::new(beside("serve")?);
        command.arg(arm.name());
        Self::spawn(command)
    }

    /// Starts an arm by a command of its own, and reads where it serves.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other("the child has no pipes"));
        };
        let mut output = BufReader::new(output);
        let said = line(&mut output)?;
        let (addr, admin) = said.split_once(' ').map_or((&*said, None), |(addr, admin)| (addr, Some(admin)));
        let addr = addr.parse().map_err(io::Error::other)?;
        let admin = admin.map(str::parse).transpose().map_err(io::Error::other)?;
        Ok(Self { process, input, output, addr, admin })
    }

    /// Processor time used so far, of all its threads.
    pub fn cpu(&self) -> io::Result<Duration> {
        machine::cpu_time(&self.process.id().to_string())
    }

    /// Allocations and bytes so far; only a counting binary knows them.
    pub fn allocations(&mut self) -> io::Result<(u64, u64)> {
        self.input.write_all(b"?\n")?;
        allocations(&line(&mut self.output)?)
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> io::Result<u64> {
        machine::resident(&self.process.id().to_string())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads what an arm says of its allocator: their number, and the bytes.
pub(crate) fn allocations(line: &str) -> io::Result<(u64, u64)> {
    let (count, bytes) = line.split_once(' ').ok_or_else(|| io::Error::other("two numbers were expected"))?;
    Ok((count.parse().map_err(io::Error::other)?, bytes.parse().map_err(io::Error::other)?))
}

/// The path of a binary of this package, or of an example that was built with it.
pub(crate) fn beside(program: &str) -> io::Result<std::path::PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(program))
}

fn line(output: &mut BufReader<ChildStdout>) -> io::Result<String> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
