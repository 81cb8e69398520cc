//! Serves one connection: looks at its first bytes, then hands it to hyper's HTTP/1 or HTTP/2.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};

use super::conn::Conn;
use super::io::Io;
use super::refusal;
use super::stage::{Order, Protocol, Stage};
use super::streams::Streams;
use super::timer::TickTimer;
use crate::http::{Dispatch, RequestService};

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves `io` until the peer leaves, a deadline passes, or the connection is ordered to end.
///
/// Cancel-safe: dropping the future closes the socket and settles what was in progress.
pub(super) async fn serve(mut io: Io, conn: Arc<Conn>, dispatch: Arc<Dispatch>) {
    let Some(protocol) = tell_protocol(&mut io, &conn).await else { return };
    // hyper's connection, with its buffers, is made here and not before the first byte: a peer that never speaks
    // costs little.
    let service = RequestService::new(dispatch, Arc::clone(&conn));
    conn.speaks(protocol);
    match protocol {
        Protocol::Http2 => serve_http2(io, conn, service).await,
        _ => serve_http1(io, conn, service).await,
    }
}

/// Reads until the bytes are the HTTP/2 preface, or cannot be. `None` when the connection ended before.
async fn tell_protocol(io: &mut Io, conn: &Conn) -> Option<Protocol> {
    let mut seen = [0; PREFACE.len()];
    let mut buf = ReadBuf::new(&mut seen);
    loop {
        let before = buf.filled().len();
        let read = poll_fn(|cx| {
            conn.runs_on(cx.waker());
            if conn.order() >= Order::Close {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Pin::new(&mut *io).poll_read(cx, &mut buf)
        });
        let result = read.await;
        let seen = buf.filled();
        if result.is_err() || seen.len() == before {
            if conn.stage() == Stage::Head && conn.order() == Order::Close {
                io.last_word(&refusal::request_timeout());
            }
            return None;
        }
        let matches = PREFACE.starts_with(seen);
        if !matches || seen.len() == PREFACE.len() {
            io.unread(BytesMut::from(seen).freeze());
            return Some(if matches { Protocol::Http2 } else { Protocol::Http1 });
        }
    }
}

async fn serve_http1(io: Io, conn: Arc<Conn>, service: RequestService) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        // Deadlines are ours: hyper's own timer costs a tenth of a request.
        .header_read_timeout(None)
        // While a request is in progress hyper would read, to see whether the peer is still there, and for that take a
        // second buffer. `Io` only looks.
        .half_close(true)
        .max_headers(100)
        .max_header_size(conn.limits.max_header_bytes);
    let mut connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let ordered = poll_fn(|cx| {
        conn.runs_on(cx.waker());
        let order = conn.order();
        // An idle connection is looked at once more: a request that lies in the socket came before the order.
        let may_have_more = order == Order::Close && conn.stage() == Stage::Idle;
        if order >= Order::Close && !may_have_more {
            return Poll::Ready(true);
        }
        let polled = Pin::new(&mut connection).poll(cx);
        if polled.is_pending() && may_have_more && !conn.pardon() {
            return Poll::Ready(true);
        }
        if let Err(error) = ready!(polled) {
            tracing::debug!(target: "mainspring::serve", peer = %conn.peer, %error, "connection ended");
        }
        Poll::Ready(false)
    });
    if ordered.await
        && conn.stage() == Stage::Head
        && let Some(parts) = connection.into_parts()
    {
        parts.io.inner().last_word(&refusal::request_timeout());
    }
}

async fn serve_http2(io: Io, conn: Arc<Conn>, service: RequestService) {
    let streams = Streams::new(conn.limits.idle_timeout, io.connections(), conn.peer);
    let mut builder = hyper::server::conn::http2::Builder::new(streams.clone());
    builder
        .timer(TickTimer::new(Arc::clone(&conn)))
        // Set one by one, because a default that was switched off elsewhere has been a vulnerability before.
        .max_concurrent_streams(100)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .max_header_list_size(u32::try_from(conn.limits.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(io), service));
    poll_fn(|cx| {
        conn.runs_on(cx.waker());
        if conn.order() >= Order::Close {
            return Poll::Ready(());
        }
        if let Err(error) = ready!(connection.as_mut().poll(cx)) {
            tracing::debug!(target: "mainspring::serve", peer = %conn.peer, %error, "connection ended");
        }
        Poll::Ready(())
    })
    .await;
    // Streams that are still running belong to this connection and end with it.
    drop(connection);
    streams.ended().await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::pin::pin;

    use axum::routing::get;
    use futures_util::FutureExt;
    use mainspring_daemon::Shutdown;

    use super::*;
    use crate::http::{Routes, Settings};
    use crate::metrics::ServerMetrics;
    use crate::serve::{Connections, Limits};

    fn connections(metrics: &Arc<ServerMetrics>) -> Arc<Connections> {
        let long = Duration::from_secs(60);
        let limits = Limits {
            max_connections: 1,
            max_header_bytes: 64 * 1024,
            first_byte_timeout: long,
            header_timeout: long,
            idle_timeout: long,
            last_call: long,
        };
        Connections::new(limits, Arc::clone(metrics))
    }

    fn dispatch(metrics: Arc<ServerMetrics>, router: axum::Router) -> Arc<Dispatch> {
        let routes = Routes::of(&router, Duration::from_secs(60), &[], &[]).unwrap();
        let settings = Settings { max_in_flight: 1, max_body: 0, body_timeout: Duration::ZERO };
        Dispatch::new(router, routes, settings, None, metrics, Shutdown::never())
    }

    #[tokio::test]
    async fn a_request_that_lies_in_the_socket_is_answered_before_the_connection_is_closed() {
        let metrics = Arc::new(ServerMetrics::new());
        let connections = connections(&metrics);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let conn = connections.open(peer).unwrap();
        let io = Io::new(stream, Arc::clone(&conn), connections);
        let router = axum::Router::new().route("/", get(async || "hello"));
        let mut serving = pin!(serve(io, Arc::clone(&conn), dispatch(metrics, router)));
        let answered = |client: &mut std::net::TcpStream| {
            let mut answer = [0; 1024];
            client.read(&mut answer).is_ok_and(|read| answer[..read].ends_with(b"hello"))
        };
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        while !answered(&mut client) {
            assert!(serving.as_mut().now_or_never().is_none());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The next one has arrived, but the connection's turn comes only after the order.
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        conn.expire(u64::MAX - 1);
        assert!(serving.as_mut().now_or_never().is_none());
        assert!(answered(&mut client));
        // It was the last.
        conn.expire(u64::MAX - 1);
        assert!(serving.now_or_never().is_some());
    }

    /// Asks for `/`.
    const GET: &[u8] = &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84];
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0];

    #[tokio::test(start_paused = true)]
    async fn an_http2_peer_that_is_silent_is_pinged_and_left_when_it_does_not_answer() {
        let metrics = Arc::new(ServerMetrics::new());
        let connections = connections(&metrics);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(&[PREFACE, SETTINGS, GET].concat()).unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let conn = connections.open(peer).unwrap();
        let io = Io::new(stream, Arc::clone(&conn), Arc::clone(&connections));
        let router = axum::Router::new().route("/", get(std::future::pending::<()>));
        let since = tokio::time::Instant::now();
        // In a task of its own, so that the connection's is polled only when it is woken.
        let mut ticking = tokio::task::JoinSet::new();
        ticking.spawn(async move { connections.tick().await });
        serve(io, conn, dispatch(metrics, router)).await;
        let took = since.elapsed();
        assert!((40..43).contains(&took.as_secs()), "{took:?}");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard.windows(PING.len()).filter(|frame| *frame == PING).count(), 1);
    }
}
