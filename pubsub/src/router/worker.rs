//! The tasks that drive the lanes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::lane::{Lane, Shared};
use super::wake::WorkerWake;

/// A task that drives some of a route's lanes, so that handlers use as many threads as the runtime has. A lane is only
/// polled when something of its own woke it.
pub(super) struct Worker {
    shared: Arc<Shared>,
    wake: Arc<WorkerWake>,
    lanes: Vec<Lane>,
    ready: Vec<usize>,
    /// Rings at the earliest deadline that any lane has set, which may be over by then: one timer for all of them.
    timer: Pin<Box<Sleep>>,
    rings: Option<Instant>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, wake: Arc<WorkerWake>, lanes: Vec<Lane>) -> Self {
        let timer = Box::pin(sleep_until(Instant::now()));
        Self { shared, wake, lanes, ready: Vec::new(), timer, rings: None }
    }

    /// Wakes the lanes whose deadline has come, and has the timer ring at the next one.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) {
        while self.rings.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            for lane in self.lanes.iter().filter(|lane| lane.deadline.is_some_and(|deadline| deadline <= now)) {
                lane.wake.wake_lane();
            }
            let next = self.lanes.iter().filter_map(|lane| lane.deadline).filter(|deadline| *deadline > now).min();
            self.ring_at(next);
        }
    }

    fn ring_at(&mut self, at: Option<Instant>) {
        self.rings = at;
        if let Some(at) = at {
            self.timer.as_mut().reset(at);
        }
    }
}

impl Future for Worker {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.wake.waker.register(cx.waker());
        if this.shared.board.is_closed() {
            for lane in &mut this.lanes {
                lane.give_back(&this.shared);
            }
            return Poll::Ready(());
        }
        this.poll_deadlines(cx);
        // One round over those that are ready now: lanes that wake each other, or themselves, have to let others run.
        let mut ready = std::mem::take(&mut this.ready);
        this.wake.take(&mut ready);
        let mut earliest = this.rings;
        for place in ready.drain(..) {
            let lane = &mut this.lanes[place];
            lane.wake.polling();
            lane.poll(&this.shared);
            earliest = [earliest, lane.deadline].into_iter().flatten().min();
        }
        this.ready = ready;
        if earliest != this.rings {
            this.ring_at(earliest);
            this.poll_deadlines(cx);
        }
        if !this.wake.is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
