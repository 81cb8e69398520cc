//! Runs all arms, interleaved, and prints the README's table: `make bench`, or `bench --rounds 3 --seconds 1`.

use std::io;
use std::time::{Duration, Instant};

use mainspring_benches::arms::Arm;
use mainspring_benches::child::Child;
use mainspring_benches::load::{self, Protocol};
use mainspring_benches::machine::Machine;
use mainspring_benches::table::{self, Row};

const CONNECTIONS: usize = 32;

fn main() -> io::Result<()> {
    let rounds = option("--rounds", 7);
    let time = Duration::from_secs(option("--seconds", 3));
    build_arms()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(run(rounds, time))?;
    println!("{}", Machine::here());
    table::print(&rows);
    Ok(())
}

async fn run(rounds: u64, time: Duration) -> io::Result<Vec<Row>> {
    let mut arms = Vec::new();
    for arm in Arm::ALL {
        let child = Child::start("serve", arm)?;
        // Warm: code and allocator have seen requests before anything is measured.
        load::for_time(Protocol::Http1, child.addr, CONNECTIONS, Duration::from_millis(500)).await?;
        let row = Row { arm, cpu: vec![], rate: vec![], p99: vec![], allocations: (0.0, 0.0), resident: 0 };
        arms.push((child, row));
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (child, row) in &mut arms {
            let (before, began) = (child.cpu()?, Instant::now());
            let mut latencies = load::for_time(Protocol::Http1, child.addr, CONNECTIONS, time).await?;
            let (cpu, took) = (child.cpu()? - before, began.elapsed());
            latencies.sort();
            let requests = latencies.len() as f64;
            row.cpu.push(cpu.as_secs_f64() * 1e6 / requests);
            row.rate.push(requests / took.as_secs_f64());
            row.p99.push(latencies.get(latencies.len() * 99 / 100).map_or(f64::NAN, |p99| p99.as_secs_f64() * 1e6));
        }
    }
    let mut rows = Vec::new();
    for (child, mut row) in arms {
        row.resident = child.resident()?;
        row.allocations = allocations(row.arm).await?;
        rows.push(row);
    }
    Ok(rows)
}

/// Allocations of one request: the difference between two runs on warm connections.
async fn allocations(arm: Arm) -> io::Result<(f64, f64)> {
    const REQUESTS: usize = 10_000;
    let mut child = Child::start("serve_counting", arm)?;
    load::exactly(Protocol::Http1, child.addr, REQUESTS).await?;
    let before = child.allocations()?;
    load::exactly(Protocol::Http1, child.addr, REQUESTS).await?;
    let after = child.allocations()?;
    let each = |after: u64, before: u64| (after - before) as f64 / REQUESTS as f64;
    Ok((each(after.0, before.0), each(after.1, before.1)))
}

/// The arms are binaries of this package; `cargo run` builds only this one.
fn build_arms() -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--locked", "--release", "--quiet", "--package", "mainspring-benches", "--bins"]);
    if build.status()?.success() { Ok(()) } else { Err(io::Error::other("the arms could not be built")) }
}

fn option(name: &str, default: u64) -> u64 {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
}
