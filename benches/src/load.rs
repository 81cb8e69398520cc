//! The client: keep-alive connections that ask, read the answer, and ask again. Always on loopback.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What to ask, as wrk would.
const REQUEST: &[u8] = b"GET /cats/7 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";

/// Streams that share a connection, where connections can be shared.
const STREAMS: usize = 4;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
}

/// Whoever asks, one request at a time.
#[derive(Debug)]
pub struct Client(Speaks);

#[derive(Debug)]
enum Speaks {
    Http1 { stream: TcpStream, buf: Vec<u8> },
    // The task that drives the connection ends with the last of its clients.
    Http2 { requests: SendRequest<Bytes>, uri: http::Uri, _driver: std::sync::Arc<JoinSet<()>> },
}

/// Asks for `time`, `clients` requests at once. Answers the latencies, one for each request that was answered.
///
/// # Errors
/// When a connection is refused or closed, or an answer is not 200.
pub async fn for_time(
    protocol: Protocol,
    addr: SocketAddr,
    clients: usize,
    time: Duration,
) -> io::Result<Vec<Duration>> {
    let mut ready = Vec::new();
    while ready.len() < clients {
        let client = Client::connect(protocol, addr).await?;
        for _ in 1..STREAMS {
            ready.extend(client.share());
        }
        ready.push(client);
    }
    let until = Instant::now() + time;
    let mut asking = JoinSet::new();
    for mut client in ready {
        asking.spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < until {
                latencies.push(client.ask().await?);
            }
            io::Result::Ok(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = asking.join_next().await {
        all.extend(latencies??);
    }
    Ok(all)
}

/// Asks `requests` times, one after the other.
///
/// # Errors
/// As [`for_time`].
pub async fn exactly(protocol: Protocol, addr: SocketAddr, requests: usize) -> io::Result<()> {
    let mut client = Client::connect(protocol, addr).await?;
    for _ in 0..requests {
        client.ask().await?;
    }
    Ok(())
}

impl Protocol {
    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When that fails.
    pub async fn connect(protocol: Protocol, addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        if protocol == Protocol::Http1 {
            return Ok(Self(Speaks::Http1 { stream, buf: vec![0; 4096] }));
        }
        let (requests, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let uri = format!("http://{addr}/cats/7").parse().map_err(io::Error::other)?;
        Ok(Self(Speaks::Http2 { requests, uri, _driver: driver.into() }))
    }

    /// Asks once, and waits for the answer.
    ///
    /// # Errors
    /// When the connection is closed, or the answer is not 200.
    pub async fn ask(&mut self) -> io::Result<Duration> {
        let asked = Instant::now();
        match &mut self.0 {
            Speaks::Http1 { stream, buf } => ask_http1(stream, buf).await?,
            Speaks::Http2 { requests, uri, .. } => ask_http2(requests, uri).await.map_err(io::Error::other)?,
        }
        Ok(asked.elapsed())
    }

    /// Another client of the same connection, where that is possible.
    fn share(&self) -> Option<Self> {
        match &self.0 {
            Speaks::Http1 { .. } => None,
            Speaks::Http2 { requests, uri, _driver } => {
                let (requests, uri) = (requests.clone(), uri.clone());
                Some(Self(Speaks::Http2 { requests, uri, _driver: std::sync::Arc::clone(_driver) }))
            }
        }
    }
}

async fn ask_http1(stream: &mut TcpStream, buf: &mut [u8]) -> io::Result<()> {
    stream.write_all(REQUEST).await?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buf[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let answer = &buf[..filled];
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other(String::from_utf8_lossy(answer).into_owned()));
        }
        // The application's answer is one JSON object, and no header has a brace.
        if answer.ends_with(b"}") {
            return Ok(());
        }
    }
}

async fn ask_http2(
    requests: &SendRequest<Bytes>,
    uri: &http::Uri,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let request = http::Request::get(uri.clone()).header("user-agent", "bench").header("accept", "*/*").body(())?;
    let mut requests = requests.clone().ready().await?;
    let (response, _) = requests.send_request(request, true)?;
    let response = response.await?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("answered {}", response.status()).into());
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(())
}
