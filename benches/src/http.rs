//! What a request costs, over HTTP/1 and HTTP/2: the arms in turn, each in a process of its own.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::arms::Arm;
use crate::child::Child;
use crate::load::{self, Protocol};
use crate::table::{self, Row};

const CLIENTS: usize = 32;
/// Connections that never speak, to see what each costs.
const SILENT: usize = 1000;

/// Runs all arms and prints a table for each protocol; answers both as JSON.
///
/// # Errors
/// When an arm cannot be built or does not answer.
pub fn run(rounds: usize, time: Duration) -> io::Result<Value> {
    build_arms()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut results = serde_json::Map::new();
    for (protocol, title) in [
        (Protocol::Http1, "HTTP/1, 32 connections, one worker"),
        (Protocol::Http2, "HTTP/2, 8 connections with 4 streams each, one worker"),
    ] {
        let rows = runtime.block_on(compare(protocol, rounds, time))?;
        table::print(title, &rows);
        results.insert(protocol.name().to_owned(), json!(rows));
    }
    Ok(Value::Object(results))
}

async fn compare(protocol: Protocol, rounds: usize, time: Duration) -> io::Result<Vec<Row>> {
    let mut arms = Vec::new();
    for arm in Arm::ALL {
        let child = Child::start("serve", arm)?;
        let mut row = Row::new(arm);
        row.idle = child.resident()?;
        row.silent = silent(&child).await?;
        // Warm: code and allocator have seen requests before anything is measured.
        load::for_time(protocol, child.addr, CLIENTS, Duration::from_millis(500)).await?;
        arms.push((child, row));
    }
    for round in 1..=rounds {
        eprintln!("{}: round {round} of {rounds}", protocol.name());
        for (child, row) in &mut arms {
            let (before, began) = (child.cpu()?, Instant::now());
            let mut latencies = load::for_time(protocol, child.addr, CLIENTS, time).await?;
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
        row.allocations = allocations(protocol, row.arm).await?;
        rows.push(row);
    }
    Ok(rows)
}

/// Memory of one connection that was accepted and has sent nothing.
async fn silent(child: &Child) -> io::Result<u64> {
    let before = child.resident()?;
    let mut connections = Vec::new();
    while connections.len() < SILENT {
        connections.push(tokio::net::TcpStream::connect(child.addr).await?);
    }
    // Connected is not accepted yet; a request on another connection is answered after those before it were accepted.
    load::exactly(Protocol::Http1, child.addr, 10).await?;
    Ok(child.resident()?.saturating_sub(before) / SILENT as u64)
}

/// Allocations of one request: the difference between two runs on warm connections.
async fn allocations(protocol: Protocol, arm: Arm) -> io::Result<(f64, f64)> {
    const REQUESTS: usize = 10_000;
    let mut child = Child::start("serve_counting", arm)?;
    load::exactly(protocol, child.addr, REQUESTS).await?;
    let before = child.allocations()?;
    load::exactly(protocol, child.addr, REQUESTS).await?;
    let after = child.allocations()?;
    let each = |after: u64, before: u64| (after - before) as f64 / REQUESTS as f64;
    Ok((each(after.0, before.0), each(after.1, before.1)))
}

/// The arms are binaries of this package, and an example; `cargo run` builds only one.
pub(crate) fn build_arms() -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--locked", "--release", "--quiet", "--bins"]);
    build.args(["--package", "mainspring-benches", "--package", "orders"]);
    if build.status()?.success() { Ok(()) } else { Err(io::Error::other("the arms could not be built")) }
}
