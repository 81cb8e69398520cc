//! Takes connections off a listening socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::io::Io;
use super::{Connections, LeftOver, connection, refusal};
use crate::http::Dispatch;

/// A listening socket, its connections, and the tasks that serve them.
///
/// The acceptor owns every connection task: dropping it ends them.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Option<TcpListener>,
    connections: Arc<Connections>,
    dispatch: Arc<Dispatch>,
    tasks: JoinSet<()>,
    trouble: Trouble,
}

/// Errors of `accept`, which must neither spin nor flood the log.
#[derive(Debug)]
struct Trouble {
    /// `public` or `admin`.
    listener: &'static str,
    addr: Option<SocketAddr>,
    pause: Duration,
    logged: Option<Instant>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const LOG_EVERY: Duration = Duration::from_secs(10);
/// `ENFILE`, the system's, and `EMFILE`, the process's.
const OUT_OF_DESCRIPTORS: [i32; 2] = [23, 24];
/// How long aborted tasks may take to notice.
const ABORT_GRACE: Duration = Duration::from_millis(50);

impl Acceptor {
    /// Wraps a bound socket. Must be called on the runtime that will serve it.
    ///
    /// `name` says in the log which listener it is.
    pub(crate) fn new(
        name: &'static str,
        listener: std::net::TcpListener,
        connections: Arc<Connections>,
        dispatch: Arc<Dispatch>,
    ) -> io::Result<Self> {
        let trouble = Trouble { listener: name, addr: listener.local_addr().ok(), pause: FIRST_PAUSE, logged: None };
        let listener = Some(TcpListener::from_std(listener)?);
        let mut tasks = JoinSet::new();
        let ticking = Arc::clone(&connections);
        tasks.spawn(async move { ticking.tick().await });
        Ok(Self { listener, connections, dispatch, tasks, trouble })
    }

    /// Accepts and serves, for ever. Cancel-safe: what was accepted is served on.
    pub(crate) async fn accept(&mut self) {
        loop {
            let Some(listener) = &self.listener else { return std::future::pending().await };
            match listener.accept().await {
                Ok((stream, peer)) => self.serve(stream, peer),
                Err(error) => self.trouble.pause(&error).await,
            }
            // Finished connections are joined here, one or two for each that comes.
            while self.tasks.try_join_next().is_some() {}
        }
    }

    /// Serves what the kernel has accepted already, then closes the listening socket.
    pub(crate) fn stop_accepting(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        // The kernel is asked, not tokio, which may not have heard of the last ones yet. The socket does not block.
        let Ok(listener) = listener.into_std() else { return };
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                        self.serve(stream, peer);
                    }
                }
                // This one is gone, the next may not be.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }

    /// Asks all connections to end by then, and waits until they have. Cancel-safe.
    pub(crate) async fn drain(&mut self, by: Instant) {
        self.connections.drain(by);
        self.connections.emptied().await;
    }

    /// Ends what is left, and names it.
    pub(crate) async fn abort(&mut self) -> Vec<LeftOver> {
        let left = self.connections.left();
        self.connections.abort();
        let _ = tokio::time::timeout(ABORT_GRACE, self.connections.emptied()).await;
        self.tasks.abort_all();
        left
    }

    fn serve(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.trouble.pause = FIRST_PAUSE;
        // Small answers must not wait for the peer's delayed acknowledgement. A socket that refuses is dead already.
        let _ = stream.set_nodelay(true);
        match self.connections.open(peer) {
            Some(conn) => {
                let io = Io::new(stream, Arc::clone(&conn), Arc::clone(&self.connections));
                self.tasks.spawn(connection::serve(io, conn, Arc::clone(&self.dispatch)));
            }
            None => {
                let refusal = refusal::too_many_connections();
                self.connections.refused(&peer, &refusal);
                let _ = stream.try_write(&refusal.bytes);
            }
        }
    }
}

impl Trouble {
    async fn pause(&mut self, error: &io::Error) {
        // These concern one connection that is gone already, not the socket.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
        ) {
            return;
        }
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let hint = OUT_OF_DESCRIPTORS.contains(&error.raw_os_error().unwrap_or_default()).then_some(
                "raise the limit of file descriptors (ulimit -n, LimitNOFILE=) or lower http.max_connections",
            );
            let addr = self.addr.map(tracing::field::display);
            tracing::error!(listener = self.listener, addr, %error, hint, "cannot accept connections; trying again");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
