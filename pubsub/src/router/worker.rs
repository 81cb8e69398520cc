//! The tasks that drive the lanes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::lane::Lane;
use super::shared::Shared;
use super::wake::WorkerWake;

/// A task that drives some of a route's lanes, so that handlers use as many threads as the runtime has. A lane is only
/// polled when something of its own woke it, or when it is free and there is a message for it.
pub(super) struct Worker {
    shared: Arc<Shared>,
    wake: Arc<WorkerWake>,
    lanes: Vec<Lane>,
    /// The lanes that have no message; the last one goes first.
    free: Vec<usize>,
    ready: Vec<usize>,
    /// Rings at the earliest deadline that any lane has set, which may be over by then: one timer for all of them.
    timer: Pin<Box<Sleep>>,
    rings: Option<Instant>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, wake: Arc<WorkerWake>, lanes: Vec<Lane>) -> Self {
        let timer = Box::pin(sleep_until(Instant::now()));
        // The first lane is the one to be kept busiest.
        let free = (0..lanes.len()).rev().collect();
        Self { shared, wake, lanes, free, ready: Vec::new(), timer, rings: None }
    }

    /// Goes on with the lanes that were woken. One round only: lanes that wake each other, or themselves, have to let
    /// others run.
    fn poll_woken(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        self.wake.take(&mut ready);
        for place in ready.drain(..) {
            let lane = &mut self.lanes[place];
            lane.wake.polling();
            // A handler that is gone may wake its lane late.
            if !lane.is_free && self.poll_lane(place).is_ready() {
                self.free.push(place);
            }
        }
        self.ready = ready;
    }

    /// Has free lanes take what waits, one after the other: as most handlers are done at once, one lane will often do. Its
    /// turn is the worker's, or as many turns as there are lanes would go by before others have theirs.
    fn poll_free(&mut self) {
        while let Some(place) = self.free.pop() {
            if self.poll_lane(place).is_ready() {
                return self.free.push(place);
            }
            if self.lanes[place].job.is_none() {
                return;
            }
        }
    }

    fn poll_lane(&mut self, place: usize) -> Poll<()> {
        let lane = &mut self.lanes[place];
        let polled = lane.poll(&self.shared);
        lane.is_free = polled.is_ready();
        if let Some(deadline) = lane.deadline
            && self.rings.is_none_or(|rings| deadline < rings)
        {
            self.ring_at(Some(deadline));
        }
        polled
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
        let rings = this.rings;
        this.poll_woken();
        this.poll_free();
        if this.rings != rings {
            this.poll_deadlines(cx);
        }
        if !this.wake.is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
