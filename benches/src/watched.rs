//! What it costs to look inside: a CPU profile while requests are served, and a scrape of ten thousand series.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::arms::{Arm, SERIES};
use crate::child::Child;
use crate::figures::Figures;
use crate::hostile::percentile;
use crate::load::{self, Protocol};

const CLIENTS: usize = 8;
/// How often Prometheus would never ask.
const BETWEEN_SCRAPES: Duration = Duration::from_millis(500);

/// Runs both and prints the table.
///
/// # Errors
/// When the server cannot be started or does not answer.
pub fn run(rounds: usize, time: Duration) -> io::Result<Figures> {
    crate::http::build_arms()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let table = runtime.block_on(measure(rounds, time))?;
    table.print();
    Ok(table)
}

async fn measure(rounds: usize, time: Duration) -> io::Result<Figures> {
    let child = Child::unpinned(Arm::Watched)?;
    let admin = child.admin.ok_or_else(|| io::Error::other("no admin listener"))?;
    ask(&child, time).await?;
    let (mut plain, mut profiled, mut overhead) = (vec![], vec![], vec![]);
    let (mut quiet, mut scraped, mut scrapes, mut slower) = (vec![], vec![], vec![], vec![]);
    for round in 1..=rounds {
        eprintln!("profile and scrape: round {round} of {rounds}");
        let (cpu, p99) = ask(&child, time).await?;
        plain.push(cpu);
        quiet.push(p99);

        let seconds = time.as_secs().max(1);
        let mut profile = JoinSet::new();
        profile.spawn(async move { get(admin, &format!("/debug/pprof/profile?seconds={seconds}&hz=99")).await });
        let (cpu, _) = ask(&child, Duration::from_secs(seconds)).await?;
        profiled.push(cpu);
        overhead.push((cpu / plain[round - 1] - 1.0) * 100.0);
        while let Some(taken) = profile.join_next().await {
            taken??;
        }

        let mut scraping = JoinSet::new();
        scraping.spawn(async move {
            let mut took = Vec::new();
            loop {
                let began = Instant::now();
                let page = get(admin, "/metrics").await?;
                took.push(began.elapsed().as_secs_f64() * 1e3);
                if page.iter().filter(|byte| **byte == b'\n').count() < SERIES as usize {
                    return io::Result::Err(io::Error::other("a scrape without its series"));
                }
                if took.len() as u128 * BETWEEN_SCRAPES.as_millis() >= time.as_millis() {
                    return Ok(took);
                }
                tokio::time::sleep(BETWEEN_SCRAPES).await;
            }
        });
        let (_, p99) = ask(&child, time).await?;
        scraped.push(p99);
        slower.push(p99 / quiet[round - 1]);
        while let Some(took) = scraping.join_next().await {
            scrapes.extend(took??);
        }
    }
    let mut table = Figures::new("looking inside, 8 connections");
    table.add("CPU of a request", "µs", &plain, "");
    table.add("the same during a CPU profile at 99 Hz", "µs", &profiled, "");
    table.add("more", "%", &overhead, "≤ 2");
    table.add("a scrape of 10 000 series while requests are served", "ms", &scrapes, "≤ 25");
    table.add("p99 of requests", "µs", &quiet, "");
    table.add("the same, scraped twice a second", "µs", &scraped, "");
    table.add("times as much", "×", &slower, "1");
    Ok(table)
}

/// CPU of a request, and the 99th percentile, in microseconds.
async fn ask(child: &Child, time: Duration) -> io::Result<(f64, f64)> {
    let before = child.cpu()?;
    let latencies = load::for_time(Protocol::Http1, child.addr, CLIENTS, time).await?;
    let cpu = (child.cpu()? - before).as_secs_f64() * 1e6 / latencies.len() as f64;
    Ok((cpu, percentile(latencies)))
}

/// Asks once and reads to the end.
async fn get(addr: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(io::Error::other(format!("{path}: {}", answer[..answer.len().min(500)].escape_ascii())));
    }
    Ok(answer)
}
