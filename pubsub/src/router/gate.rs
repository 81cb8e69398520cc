//! Whether a route pulls and handles: what a handle writes, and what its puller and its board read.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::route_state::RouteState;
use crate::metrics::StateGauges;

/// One route's switch. It exists before the route runs.
pub(super) struct Gate {
    state: AtomicU8,
    /// Whoever pulls: woken when the switch is turned, and by its board.
    pub(super) puller: AtomicWaker,
    /// Wakes those who wait for the end.
    end: Notify,
    was_drained: AtomicBool,
    /// Tells of the state once the route runs. Held while the switch is turned.
    gauges: Mutex<Option<StateGauges>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU8::new(RUNNING),
            puller: AtomicWaker::new(),
            end: Notify::new(),
            was_drained: AtomicBool::new(false),
            gauges: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> RouteState {
        match self.state.load(Ordering::SeqCst) {
            RUNNING => RouteState::Running,
            PAUSED => RouteState::Paused,
            DRAINING => RouteState::Draining,
            _ => RouteState::Ended,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.load(Ordering::SeqCst) == RUNNING
    }

    pub(super) fn is_paused(&self) -> bool {
        self.state.load(Ordering::SeqCst) == PAUSED
    }

    pub(super) fn is_draining(&self) -> bool {
        self.state.load(Ordering::SeqCst) >= DRAINING
    }

    /// Whether the route was told to drain, and did not end by itself.
    pub(super) fn was_drained(&self) -> bool {
        self.was_drained.load(Ordering::SeqCst)
    }

    /// Has metrics tell of the state from now on.
    pub(super) fn measure(&self, route: &'static str) {
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.insert(StateGauges::new(route)).set(self.state());
    }

    /// Turns the switch; a route that drains or has ended stays so. Answers what it is afterwards.
    pub(super) fn turn(&self, to: RouteState) -> RouteState {
        let place = match to {
            RouteState::Running => RUNNING,
            RouteState::Paused => PAUSED,
            RouteState::Draining => DRAINING,
            RouteState::Ended => ENDED,
        };
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.state.load(Ordering::SeqCst);
        if now < DRAINING || place > now {
            // First: once a route has ended, another may have its name, and its gauges.
            if let Some(gauges) = &*gauges {
                gauges.set(to);
            }
            self.was_drained.fetch_or(place == DRAINING, Ordering::SeqCst);
            self.state.store(place, Ordering::SeqCst);
        }
        drop(gauges);
        self.puller.wake();
        let state = self.state();
        if state == RouteState::Ended {
            self.end.notify_waiters();
        }
        state
    }

    /// Waits until the route has ended.
    pub(super) async fn ended(&self) {
        let mut end = pin!(self.end.notified());
        // Listen before looking, so that an end in between is not missed.
        end.as_mut().enable();
        if self.state() != RouteState::Ended {
            end.await;
        }
    }
}

const RUNNING: u8 = 0;
const PAUSED: u8 = 1;
const DRAINING: u8 = 2;
const ENDED: u8 = 3;
