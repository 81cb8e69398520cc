//! Holds what requests and messages cost against `gates.toml`: see `scripts/gates.sh`.
//!
//! `gates` measures and judges, `gates --accept` measures and writes the file anew, `gates CASE…` only looks at these,
//! `gates run CASE` is what a measurement starts. `KEEP=1` keeps what callgrind wrote, to see where a number comes from.

use std::alloc::System;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use mainspring_benches::gate::{Case, Cost, Table, Used, Verdict, measure, subject};
use mainspring_benches::machine;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gates.toml");

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["run", case] => subject(case, used).map_err(io::Error::other).map(|()| true),
        ["--accept"] => accept().map(|()| true),
        ref named => judge(named),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gates: {error}");
            ExitCode::FAILURE
        }
    }
}

fn used() -> Used {
    let stats = ALLOCATOR.stats();
    Used { allocations: stats.allocations + stats.reallocations, bytes: stats.bytes_allocated }
}

/// Whether nothing has risen.
fn judge(named: &[&str]) -> io::Result<bool> {
    let table = Table::parse(&std::fs::read_to_string(FILE)?).map_err(io::Error::other)?;
    let (mut rose, mut fell) = (Vec::new(), Vec::new());
    let costs = measure_all(named)?;
    for (case, cost) in costs.iter().filter(|(case, _)| !case.is_mark()) {
        match table.judge(*case, *cost) {
            Verdict::Same => {}
            Verdict::Fell(what) => fell.push(what),
            Verdict::Rose(what) => rose.push(what),
        }
    }
    for what in &fell {
        println!("less than gates.toml says: {what}");
    }
    for what in &rose {
        println!("FAILED {what}");
    }
    if !rose.is_empty() {
        println!("Take it back, or accept it with `scripts/gates.sh --accept` and say in the commit what it buys.");
    }
    Ok(rose.is_empty())
}

fn accept() -> io::Result<()> {
    let mut table = Table::default();
    for (case, cost) in measure_all(&[])?.into_iter().filter(|(case, _)| !case.is_mark()) {
        table.set(case, cost);
    }
    std::fs::write(FILE, table.print(&machine::toolchain()))
}

/// Measures the cases that are named, or all, and prints what they cost.
fn measure_all(named: &[&str]) -> io::Result<Vec<(Case, Cost)>> {
    let scratch = std::env::temp_dir().join(format!("mainspring-gates-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = |case: &Case| named.is_empty() || named.contains(&case.name().as_str());
    let result = Case::all().into_iter().filter(wanted).map(|case| measured(case, &runtime, &scratch)).collect();
    match std::env::var_os("KEEP") {
        Some(_) => println!("what callgrind wrote is in {}", scratch.display()),
        None => std::fs::remove_dir_all(&scratch)?,
    }
    result
}

fn measured(case: Case, runtime: &tokio::runtime::Runtime, scratch: &Path) -> io::Result<(Case, Cost)> {
    let cost = runtime.block_on(measure(case, scratch)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!("valgrind is needed: {error}")),
        _ => error,
    })?;
    println!("{:<18} {:>7} instructions {:>6.2} allocations", case.name(), cost.instructions, cost.allocations);
    Ok((case, cost))
}
