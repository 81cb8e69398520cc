//! Whether a route pulls and handles: what a handle writes, and what its puller and its board read.

use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::route_state::RouteState;

/// One route's switch. It exists before the route runs.
pub(super) struct Gate {
    state: AtomicU8,
    /// Whoever pulls: woken when the switch is turned, and by its board.
    pub(super) puller: AtomicWaker,
    /// Wakes those who wait for the end.
    end: Notify,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { state: AtomicU8::new(RUNNING), puller: AtomicWaker::new(), end: Notify::new() }
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

    /// Turns the switch; a route that drains or has ended stays so. Answers what it is afterwards.
    pub(super) fn turn(&self, to: RouteState) -> RouteState {
        let to = match to {
            RouteState::Running => RUNNING,
            RouteState::Paused => PAUSED,
            RouteState::Draining => DRAINING,
            RouteState::Ended => ENDED,
        };
        let turn = |now| (now < DRAINING || to > now).then_some(to);
        // An error only says that it stays as it is.
        let _ = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, turn);
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
