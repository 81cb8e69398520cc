//! What the page shows, whatever its form.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Message;
use crate::delivery::Position;
use crate::driver::{Endpoint, PartitionProgress};
use crate::router::handle::Named;
use crate::router::ledger::{Doing, Held, Running};
use crate::router::route_state::RouteState;
use crate::router::shared::Shared;

/// Messages of each sort that are listed; more are counted.
const LISTED: usize = 100;

/// Characters of a key that are shown. Keys may be personal, so this page is the only place that shows them.
const KEY: usize = 64;

/// A route at this moment.
pub(super) struct RouteView {
    pub(super) name: &'static str,
    /// What it receives from, once it runs.
    pub(super) source: Option<Arc<Endpoint>>,
    pub(super) state: RouteState,
    pub(super) was_drained: bool,
    /// While it runs.
    pub(super) held: Option<HeldView>,
}

/// What a route holds.
pub(super) struct HeldView {
    pub(super) stopping: bool,
    pub(super) running: usize,
    pub(super) ready: usize,
    pub(super) behind: usize,
    pub(super) delayed: usize,
    pub(super) bytes: usize,
    pub(super) partitions: Vec<PartitionProgress>,
    /// Of each sort the first few.
    pub(super) messages: Vec<MessageView>,
}

/// A message that a route holds.
pub(super) struct MessageView {
    message: Arc<Message>,
    pub(super) position: Option<Position>,
    pub(super) attempt: u32,
    pub(super) lane: Option<usize>,
    pub(super) doing: &'static str,
    /// For how long its lane does that, or how long until it is tried again.
    pub(super) time: Option<Time>,
    pub(super) age: Duration,
    /// Zero when it is over.
    pub(super) lease: Option<Duration>,
}

#[derive(Clone, Copy)]
pub(super) enum Time {
    For(Duration),
    In(Duration),
}

impl RouteView {
    pub(super) fn new(route: &Named) -> Self {
        let state = route.gate.state();
        let held = route.view.upgrade().filter(|_| state != RouteState::Ended);
        Self {
            name: route.name,
            source: route.source.clone(),
            state,
            was_drained: route.gate.was_drained(),
            held: held.map(|shared| HeldView::new(&shared)),
        }
    }
}

impl HeldView {
    fn new(route: &Shared) -> Self {
        let (held, now) = (route.board.snapshot(), Instant::now());
        let what_for =
            if route.board.gate.is_paused() { "waits for the route to be resumed" } else { "waits for a lane" };
        let waiting = |job: &Held, doing, time| MessageView::waiting(now, job, doing, time);
        let running = held.running.iter().take(LISTED);
        let mut messages: Vec<_> =
            running.map(|(lane, job)| MessageView::at_work(now, *lane, job, route.in_batches)).collect();
        messages.extend(
            held.delayed
                .iter()
                .take(LISTED)
                .map(|(due, job)| waiting(job, "retry", Some(Time::In(due.saturating_duration_since(now))))),
        );
        messages.extend(held.ready.iter().take(LISTED).map(|job| waiting(job, what_for, None)));
        messages.extend(held.behind.iter().take(LISTED).map(|job| waiting(job, "waits behind its key", None)));
        Self {
            stopping: route.board.is_draining(),
            running: held.running.len(),
            ready: held.ready.len(),
            behind: held.behind.len(),
            delayed: held.delayed.len(),
            bytes: held.bytes,
            partitions: route.progress.iter().flat_map(|progress| progress.partitions()).collect(),
            messages,
        }
    }
}

impl MessageView {
    fn at_work(now: Instant, lane: usize, job: &Running, in_batches: bool) -> Self {
        let doing = match job.doing {
            Doing::Held if in_batches => "waits for its batch",
            Doing::Held => "held back by a layer",
            Doing::Handling => "running",
            Doing::Burying => "dead letter",
        };
        Self {
            message: Arc::clone(&job.message),
            position: job.position,
            attempt: job.attempt,
            lane: Some(lane),
            doing,
            time: Some(Time::For(now - job.since)),
            age: now - job.received,
            lease: job.lease.map(|expires| expires - now),
        }
    }

    fn waiting(now: Instant, job: &Held, doing: &'static str, time: Option<Time>) -> Self {
        Self {
            message: Arc::clone(&job.message),
            position: job.position,
            attempt: job.attempt,
            lane: None,
            doing,
            time,
            age: now - job.received,
            lease: job.lease.map(|expires| expires - now),
        }
    }

    pub(super) fn id(&self) -> String {
        self.message.id.to_string()
    }

    /// The beginning of the key, and whether there is more of it.
    pub(super) fn key(&self) -> Option<(&str, bool)> {
        let key = self.message.key.as_deref()?;
        let end = key.char_indices().nth(KEY).map_or(key.len(), |(at, _)| at);
        Some((&key[..end], end < key.len()))
    }
}
