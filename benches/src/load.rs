//! The client: keep-alive connections that ask, read the answer, and ask again. Always on loopback.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What to ask, as wrk would.
const REQUEST: &[u8] = b"GET /cats/7 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";

/// Asks from `connections` connections for `time`. Answers how many requests were answered, and the latencies.
///
/// # Errors
/// When a connection is refused or closed, or an answer is not 200.
pub async fn for_time(addr: SocketAddr, connections: usize, time: Duration) -> io::Result<Vec<Duration>> {
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        clients.spawn(async move {
            let mut client = Client::connect(addr).await?;
            let mut latencies = Vec::new();
            while Instant::now() < until {
                latencies.push(client.ask().await?);
            }
            io::Result::Ok(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = clients.join_next().await {
        all.extend(latencies??);
    }
    Ok(all)
}

/// Asks `requests` times from one connection.
///
/// # Errors
/// As [`for_time`].
pub async fn exactly(addr: SocketAddr, requests: usize) -> io::Result<()> {
    let mut client = Client::connect(addr).await?;
    for _ in 0..requests {
        client.ask().await?;
    }
    Ok(())
}

struct Client {
    stream: TcpStream,
    buf: [u8; 4096],
}

impl Client {
    async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buf: [0; 4096] })
    }

    async fn ask(&mut self) -> io::Result<Duration> {
        let asked = Instant::now();
        self.stream.write_all(REQUEST).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buf[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let answer = &self.buf[..filled];
            if !answer.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other(String::from_utf8_lossy(answer).into_owned()));
            }
            // The application's answer is one JSON object, and no header has a brace.
            if answer.ends_with(b"}") {
                return Ok(asked.elapsed());
            }
        }
    }
}
