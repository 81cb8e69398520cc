//! The signals that a daemon knows.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Every SIGTERM, SIGINT and SIGHUP since it was made. From the first one on, none of them ends the process by itself.
#[derive(Debug)]
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// To stop: the signal's name and number.
    Stop(&'static str, u8),
    /// To reopen and reload.
    HangUp,
}

impl Signals {
    /// Begins to listen. Needs a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            Some(()) = self.term.recv() => Told::Stop("SIGTERM", 15),
            Some(()) = self.int.recv() => Told::Stop("SIGINT", 2),
            Some(()) = self.hup.recv() => Told::HangUp,
        }
    }
}
