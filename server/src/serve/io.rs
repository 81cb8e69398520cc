//! The socket as hyper sees it: it reports what moves, and ends when it is told to.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Connections;
use super::breach::Breach;
use super::conn::Conn;
use super::refusal::{self, Refusal};
use super::stage::{Order, Protocol, Stage};

/// A socket that belongs to a registered connection. Dropping it closes the socket and signs the connection off,
/// also after an upgrade, when another task owns it.
#[derive(Debug)]
pub(super) struct Io {
    stream: TcpStream,
    conn: Arc<Conn>,
    connections: Arc<Connections>,
    /// Bytes that were read to tell the protocol, given back before anything else.
    prefix: Bytes,
}

impl Io {
    pub(super) fn new(stream: TcpStream, conn: Arc<Conn>, connections: Arc<Connections>) -> Self {
        Self { stream, conn, connections, prefix: Bytes::new() }
    }

    /// The register that it belongs to.
    pub(super) fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// Puts bytes back, to be read again.
    pub(super) fn unread(&mut self, prefix: Bytes) {
        self.prefix = prefix;
    }

    /// Writes what fits into the socket's buffer, for a last word to a peer that broke a deadline.
    pub(super) fn last_word(&self, refusal: &Refusal) {
        self.connections.told(&self.conn.peer, refusal);
        let _ = self.stream.try_write(&refusal.bytes);
    }

    /// Whether an upgraded connection, which no task of ours polls, may go on.
    fn permitted(&self, cx: &Context<'_>, waker: &futures_util::task::AtomicWaker) -> io::Result<()> {
        if self.conn.stage() == Stage::Upgraded {
            waker.register(cx.waker());
            if self.conn.order() >= Order::Close {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server is shutting down"));
            }
        }
        Ok(())
    }

    /// Fails when the peer has left before its HTTP/1 request was answered, and wakes `cx` when that happens.
    ///
    /// hyper flushes at the end of each of its turns, so this is asked whenever a handler or a body keeps it waiting.
    /// What the peer has sent ahead, the next request or more of this one's body, stays where it is.
    fn notice_hang_up(&self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.conn.stage() != Stage::Busy || self.conn.protocol() != Protocol::Http1 {
            return Ok(());
        }
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Counts a limit that the peer was found to have broken, and fails if nobody else ends the connection.
    fn judge(&self, breach: Option<Breach>) -> io::Result<()> {
        let Some(breach) = breach else { return Ok(()) };
        self.connections.ended(&self.conn.peer, breach.reason());
        match breach {
            Breach::ControlFlood => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many control frames")),
            // hyper has said so itself, and closes.
            _ => Ok(()),
        }
    }

    /// Sends our own last frame when it is due and no frame is half written. Pending when only a part of it left.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(goodbye) = self.conn.goodbye.get() {
            while let Some(frame) = goodbye.due() {
                goodbye.sent(ready!(Pin::new(&mut self.stream).poll_write(cx, frame))?);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.has_remaining() {
            let n = this.prefix.remaining().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(n));
            return Poll::Ready(Ok(()));
        }
        this.permitted(cx, &this.conn.reader)?;
        if let Poll::Ready(Err(error)) = this.say_goodbye(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.conn.heard();
        }
        polled
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.permitted(cx, &this.conn.writer)?;
        ready!(this.say_goodbye(cx))?;
        let allowed = match this.conn.goodbye.get() {
            Some(goodbye) if goodbye.is_last_word() => return Poll::Ready(after_goodbye(buf)),
            Some(goodbye) => goodbye.allowed(buf),
            None => buf.len(),
        };
        // Only while no request is in progress: what looks alike in a handler's answer is the handler's.
        if this.conn.stage() == Stage::Head
            && let Some(refusal) = refusal::in_place_of(buf)
        {
            this.connections.refused(&this.conn.peer, &refusal);
            // It fits into an empty socket buffer; a peer that left it full does not deserve better.
            let polled = Pin::new(&mut this.stream).poll_write(cx, &refusal.bytes);
            return polled.map_ok(|_| buf.len());
        }
        let polled = Pin::new(&mut this.stream).poll_write(cx, &buf[..allowed]);
        match &polled {
            Poll::Ready(Ok(written)) => {
                this.conn.write_moved();
                if let Some(goodbye) = this.conn.goodbye.get() {
                    this.judge(goodbye.wrote(&buf[..*written]))?;
                }
            }
            Poll::Pending => this.conn.write_stalled(),
            Poll::Ready(Err(_)) => {}
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Few writes need a closer look; those go the plain way, one buffer at a time.
        let goodbye = self.conn.goodbye.get();
        if goodbye.is_some_and(|goodbye| goodbye.is_waiting() || goodbye.is_last_word())
            || bufs.first().is_some_and(|first| first.starts_with(b"HTTP/1.1 4"))
        {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
            return self.poll_write(cx, first);
        }
        let this = self.get_mut();
        this.permitted(cx, &this.conn.writer)?;
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        match &polled {
            Poll::Ready(Ok(written)) => {
                this.conn.write_moved();
                if let Some(goodbye) = this.conn.goodbye.get() {
                    this.judge(goodbye.wrote_vectored(bufs, *written))?;
                }
            }
            Poll::Pending => this.conn.write_stalled(),
            Poll::Ready(Err(_)) => {}
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.notice_hang_up(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    /// Says that nothing more will come, then waits a moment for the peer to close too.
    ///
    /// A socket that is closed while the peer still writes, or with unread bytes in it, is reset, and then the peer may
    /// lose an answer that it has not read yet.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.conn.stage() {
            Stage::Upgraded => return Pin::new(&mut this.stream).poll_shutdown(cx),
            Stage::Leaving => {}
            _ => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                this.conn.answered_everything();
            }
        }
        let mut scrap = [0; 4096];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            if ready!(Pin::new(&mut this.stream).poll_read(cx, &mut scrap)).is_err() || scrap.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Nothing may follow a close frame. Answers to the peer's control frames are swallowed, so that the closing handshake
/// ends in peace; data is refused, so that a handler which only ever writes learns that it is over.
fn after_goodbye(frame: &[u8]) -> io::Result<usize> {
    match frame.first() {
        Some(first) if first & 0x0F < 8 => {
            Err(io::Error::new(io::ErrorKind::BrokenPipe, "the server is shutting down"))
        }
        _ => Ok(frame.len()),
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.connections.close(&self.conn);
    }
}
