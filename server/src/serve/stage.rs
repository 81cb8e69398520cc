//! Where a connection is in its life, and what it is told.

/// What the connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It has sent nothing yet.
    FirstByte,
    /// It has begun a request head, or the HTTP/2 preface.
    Head,
    /// A request is being handled or answered.
    Busy,
    /// Between requests.
    Idle,
    /// It is a WebSocket, or another protocol, now.
    Upgraded,
    /// Everything is answered; the peer has only to close.
    Leaving,
}

/// What the connection's task is told. Orders only ever grow, but for a [`pardon`](Conn::pardon).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    Serve,
    /// End now; nothing is in progress, or the peer broke a deadline.
    Close,
    /// End now, whatever is in progress.
    Abort,
}

/// What the bytes turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Protocol {
    Unknown,
    Http1,
    Http2,
}

impl Stage {
    /// What a stop report says the peer was doing.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::FirstByte => "sent nothing",
            Self::Head => "half a request head",
            Self::Busy => "request in progress",
            Self::Idle => "idle",
            Self::Upgraded => "upgraded",
            Self::Leaving => "answered, not closed",
        }
    }
}
