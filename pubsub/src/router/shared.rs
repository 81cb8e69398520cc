//! What the lanes of a route have in common.

use std::sync::Arc;

use mainspring_daemon::Tally;

use super::answers::Answers;
use super::board::Board;
use super::dead_letter::Watcher;
use crate::driver::{Capabilities, Endpoint, Progress};
use crate::metrics::Handled;
use crate::{Policy, Publisher};

/// What the lanes of a route have in common, and what the debug page shows.
pub(super) struct Shared {
    pub(super) route: &'static str,
    pub(super) policy: Policy,
    /// Whether the handler takes several messages at once.
    pub(super) in_batches: bool,
    pub(super) dead_letter: Option<Publisher>,
    pub(super) watcher: Option<Watcher>,
    pub(super) capabilities: Capabilities,
    pub(super) source: Arc<Endpoint>,
    pub(super) exactly_once: bool,
    pub(super) progress: Option<Arc<dyn Progress>>,
    pub(super) metrics: Handled,
    pub(super) settled: Tally,
    pub(super) returned: Tally,
    pub(super) answers: Answers,
    pub(super) board: Board,
}

impl Shared {
    /// How many messages of a queue in memory nobody has on loan.
    pub(super) fn waiting(&self) -> usize {
        self.progress.as_ref().and_then(|progress| progress.waiting()).unwrap_or(0)
    }
}
