//! What holds for every route of a router.

use mainspring_config::ByteSize;

use super::dead_letter::Watcher;
use crate::batch::Batching;
use crate::{Policy, Publisher};

/// What holds for every route.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) concurrency: usize,
    pub(super) prefetch: Option<usize>,
    pub(super) max_bytes: usize,
    pub(super) policy: Policy,
    pub(super) dead_letter: Option<Publisher>,
    pub(super) watcher: Option<Watcher>,
    pub(super) exactly_once: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 16,
            prefetch: None,
            max_bytes: ByteSize::mib(64).as_usize(),
            policy: Policy::default(),
            dead_letter: None,
            watcher: None,
            exactly_once: false,
        }
    }
}

impl Settings {
    /// How many messages of a route handlers may have at once.
    pub(super) fn lanes(&self, batching: Option<&Batching>) -> usize {
        self.concurrency.saturating_mul(batching.map_or(1, |batching| batching.max))
    }
}
