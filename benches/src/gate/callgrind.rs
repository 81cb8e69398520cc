//! Runs a case under valgrind's callgrind.

use std::io::{self, BufRead};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Case, Cost};
use crate::child::{Child, allocations};
use crate::load::Client;
use crate::messages;

/// Requests before the first window, so that buffers have grown and routes have been seen.
const WARM_UP: usize = 300;
/// Requests of a window.
const REQUESTS: usize = 1000;
/// Windows. Now and then a timer of the server's own falls into one.
const WINDOWS: usize = 3;

/// What one request or message of `case` costs. `scratch` is a folder for callgrind's files.
///
/// # Errors
/// When valgrind is missing, or the case does not run to its end.
pub async fn measure(case: Case, scratch: &Path) -> io::Result<Cost> {
    let out = scratch.join(case.name());
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet", "--dump-before=*gate::mark*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["run", &case.name()]);
    let (marks, units) = match case {
        Case::Http(protocol, _) => {
            let mut child = Child::spawn(command)?;
            let mut client = Client::connect(protocol, child.addr).await?;
            let mut marks = Vec::new();
            for window in 0..=WINDOWS {
                for _ in 0..if window == 0 { WARM_UP } else { REQUESTS } {
                    client.ask().await?;
                }
                marks.push(child.allocations()?);
            }
            (marks, REQUESTS)
        }
        Case::Messages(_) => {
            let output = command.stderr(Stdio::inherit()).output()?;
            let marks: io::Result<Vec<_>> = output.stdout.lines().map(|line| allocations(&line?)).collect();
            (marks?, messages::WINDOW)
        }
    };
    let windows = marks.windows(2).enumerate().map(|(at, pair)| {
        // The first part is what came before the first window.
        let instructions = instructions(&out.with_added_extension((at + 2).to_string()))?;
        let each = |count: u64| count as f64 / units as f64;
        Ok(Cost { instructions: each(instructions).round() as u64, allocations: each(pair[1].0 - pair[0].0) })
    });
    let windows: Vec<Cost> = windows.collect::<io::Result<_>>()?;
    let fewest = windows.into_iter().reduce(Cost::min);
    fewest.ok_or_else(|| io::Error::other(format!("`{}` ended before it was measured", case.name())))
}

/// The sum of what a file of callgrind's counts.
fn instructions(part: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(part)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    total
        .and_then(|total| total.trim().parse().ok())
        .ok_or_else(|| io::Error::other(format!("{} has no total", part.display())))
}
