//! What connections cost that do nothing, or harm: others' latency beside two thousand slow ones, and memory.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::arms::Arm;
use crate::child::{Child, beside};
use crate::figures::Figures;
use crate::load::{self, Protocol};
use crate::{limits, machine};

/// Connections that send a byte every five seconds.
const SLOW: usize = 2_000;
/// Connections that are only there.
const SILENT: usize = 10_000;
const CLIENTS: usize = 8;
const HEAD: &[u8] = b"GET /cats/7 HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
const KIB: f64 = 1024.0;

/// Runs both and prints their tables.
///
/// # Errors
/// When a server cannot be started or does not answer.
pub fn run(rounds: usize, time: Duration) -> io::Result<Vec<Figures>> {
    crate::http::build_arms()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut tables = vec![runtime.block_on(slow(rounds, time))?];
    tables[0].print();
    match limits::allow(SILENT) {
        Ok(()) => {
            tables.push(runtime.block_on(memory(rounds))?);
            tables[1].print();
        }
        Err(why) => println!("\nSKIPPED the memory of connections: {why}"),
    }
    Ok(tables)
}

/// Others' p99, without and with slow connections in turn.
async fn slow(rounds: usize, time: Duration) -> io::Result<Figures> {
    let child = Child::start("serve", Arm::Kit)?;
    let p99 = async |addr| io::Result::Ok(percentile(load::for_time(Protocol::Http1, addr, CLIENTS, time).await?));
    p99(child.addr).await?;
    let (mut without, mut with, mut times, mut grown, mut closed) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 1..=rounds {
        eprintln!("slow connections: round {round} of {rounds}");
        without.push(p99(child.addr).await?);
        let before = child.resident()?;
        let began = Instant::now();
        let mut trickling = trickle(child.addr).await?;
        with.push(p99(child.addr).await?);
        grown.push((child.resident()?.saturating_sub(before)) as f64 / KIB / SLOW as f64);
        while let Some(answered) = trickling.join_next().await {
            let answered = answered??;
            if !answered.starts_with(b"HTTP/1.1 408") {
                return Err(io::Error::other(format!(
                    "a slow client was told {:?}",
                    answered.escape_ascii().to_string()
                )));
            }
        }
        closed.push(began.elapsed().as_secs_f64());
        times.push(with[round - 1] / without[round - 1]);
    }
    let mut table = Figures::new("2 000 connections that send a byte every 5 s");
    table.add("p99 of others without them", "µs", &without, "");
    table.add("p99 of others beside them", "µs", &with, "");
    table.add("times as much", "×", &times, "≤ 2");
    table.add("memory of each", "KiB", &grown, "bounded");
    table.add("until all were answered 408 and closed", "s", &closed, "header_timeout, 10 s");
    Ok(table)
}

/// Opens the slow connections; each task ends with what the server said before it closed.
async fn trickle(addr: SocketAddr) -> io::Result<JoinSet<io::Result<Vec<u8>>>> {
    let mut trickling = JoinSet::new();
    for _ in 0..SLOW {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(HEAD).await?;
        trickling.spawn(async move {
            let mut said = Vec::new();
            loop {
                match tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut said)).await {
                    Ok(Ok(0)) => return Ok(said),
                    Ok(Ok(_)) => {}
                    // A socket that is closed while bytes are on their way is reset.
                    Ok(Err(_)) if !said.is_empty() => return Ok(said),
                    Ok(Err(error)) => return Err(error),
                    Err(_) => drop(stream.write_all(b"x").await),
                }
            }
        });
    }
    Ok(trickling)
}

/// Memory of an idle service, of connections that never spoke, and of the same after a request.
async fn memory(rounds: usize) -> io::Result<Figures> {
    let mut idle = Vec::new();
    let (mut bare, mut kit) = ((vec![], vec![]), (vec![], vec![]));
    for round in 1..=rounds {
        eprintln!("memory: round {round} of {rounds}");
        idle.push(orders()?);
        for (arm, (silent, spoken)) in [(Arm::Bare, &mut bare), (Arm::Kit, &mut kit)] {
            let (first, then) = connections(arm).await?;
            silent.push(first);
            spoken.push(then);
        }
    }
    let mut table = Figures::new("resident memory; of connections: each of 10 000");
    table.add("`examples/orders`, idle", "MiB", &idle, "≤ 15");
    table.add("a connection that never spoke, SimpleServer", "KiB", &kit.0, "≤ 8");
    table.add("the same, bare axum::serve", "KiB", &bare.0, "");
    table.add("a connection after its first request, SimpleServer", "KiB", &kit.1, "≤ bare");
    table.add("the same, bare axum::serve", "KiB", &bare.1, "");
    Ok(table)
}

/// KiB for each connection: silent, and after a request.
async fn connections(arm: Arm) -> io::Result<(f64, f64)> {
    let child = Child::start("serve", arm)?;
    // What the first requests leave behind is not the connections'.
    load::for_time(Protocol::Http1, child.addr, CLIENTS, Duration::from_millis(300)).await?;
    let before = child.resident()?;
    let each = |resident: u64| resident.saturating_sub(before) as f64 / KIB / SILENT as f64;
    let mut clients = Vec::with_capacity(SILENT);
    while clients.len() < SILENT {
        clients.push(load::Client::connect(Protocol::Http1, child.addr).await?);
    }
    // Connections are accepted in order: when the last one is answered, all are there.
    if let Some(last) = clients.last_mut() {
        last.ask().await?;
    }
    let silent = each(child.resident()?);
    for client in &mut clients {
        client.ask().await?;
    }
    Ok((silent, each(child.resident()?)))
}

/// MiB of `examples/orders` as it comes, a second after it is ready.
fn orders() -> io::Result<f64> {
    let mut orders = Command::new(beside("orders")?);
    orders.env("ORDERS_SERVER__HTTP__ADDR", "127.0.0.1:0").env("ORDERS_SERVER__ADMIN__ADDR", "127.0.0.1:0");
    let mut orders = orders.stdout(Stdio::piped()).spawn()?;
    let mut log = BufReader::new(orders.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?);
    let mut line = String::new();
    while !line.contains("\"ready\"") && log.read_line(&mut line)? > 0 {}
    std::thread::sleep(Duration::from_secs(1));
    let resident = machine::resident(&orders.id().to_string());
    let _ = orders.kill();
    orders.wait()?;
    Ok(resident? as f64 / KIB / KIB)
}

/// The 99th percentile, in microseconds.
pub(crate) fn percentile(mut latencies: Vec<Duration>) -> f64 {
    latencies.sort();
    latencies.get(latencies.len() * 99 / 100).map_or(f64::NAN, |p99| p99.as_secs_f64() * 1e6)
}
