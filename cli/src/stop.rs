//! Being told to stop.

use std::pin::Pin;

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

/// Resolves when the command is to stop.
pub(crate) type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Resolves at SIGINT or SIGTERM number `count`, counted from this call on.
pub(crate) fn signals(count: usize) -> Result<Stop, Exit> {
    let listen = |kind| signal(kind).map_err(|error| Exit::unavailable(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(Box::pin(async move {
        for _ in 0..count {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
    }))
}
