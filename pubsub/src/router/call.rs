//! What a lane does with its message: its handler at work, or its dead letter on the way.

use std::sync::Arc;

use mainspring_daemon::BoxFuture;
use mainspring_observe::correlation::Correlation;
use mainspring_observe::trace::TraceContext;
use tokio::time::Instant;

use super::job::Job;
use super::shared::Shared;
use super::slot::Slot;
use crate::batch::Hold;
use crate::{Error, Outbox, Request};

/// A call of the handler, with what comes after it when it fails.
pub(super) struct Call {
    pub(super) correlation: Correlation,
    /// When the handler began.
    pub(super) since: Instant,
    /// Whether a layer holds the message back: the handler's time has not begun.
    pub(super) held: bool,
    /// Whether the message waits for its batch, when the handler takes several.
    hold: Option<Arc<Hold>>,
    outbox: Option<Outbox>,
    pub(super) burial: Option<Burial>,
}

/// The publishing of a dead letter.
pub(super) struct Burial {
    pub(super) reason: String,
    pub(super) publish: BoxFuture<Result<(), Error>>,
}

impl Call {
    /// The call of a lane that has never had a message.
    pub(super) fn new() -> Self {
        let correlation = Correlation::default();
        Self { correlation, since: Instant::now(), held: false, hold: None, outbox: None, burial: None }
    }

    /// Becomes the call for another message.
    pub(super) fn begin(&mut self, shared: &Shared, job: &Job, since: Instant) {
        let traceparent = job.delivery.message().attributes.get("traceparent");
        let parent = traceparent.and_then(|text| TraceContext::parse(text.as_bytes()));
        let trace = parent.map_or_else(TraceContext::new, |parent| parent.child());
        self.correlation = Correlation { trace: Some(trace), request_id: None };
        self.since = since;
        self.held = false;
        self.hold = shared.in_batches.then(Arc::default);
        self.outbox = shared.exactly_once.then(|| Outbox::new(Arc::clone(&shared.source)));
        self.burial = None;
    }

    /// What the handler is called with.
    pub(super) fn request(&self, job: &Job, route: &'static str) -> Request {
        Request::new(job.delivery.shared())
            .with_attempt(job.attempt)
            .with_position(job.delivery.position())
            .with_route(route)
            .with_hold(self.hold.clone())
            .with_outbox(self.outbox.clone())
    }

    /// Whether the message has come through to the handler.
    pub(super) fn has_begun(&self, slot: &dyn Slot) -> bool {
        slot.has_begun() && self.hold.as_ref().is_none_or(|hold| !hold.waits())
    }

    /// Keeps the message from coming through to the handler; false when it just has.
    pub(super) fn withdraw(&self) -> bool {
        self.hold.as_ref().is_none_or(|hold| hold.withdraw())
    }

    /// Takes out what the handler left to be published. What it leaves behind, in a task of its own say, comes too late
    /// for this attempt.
    pub(super) fn close_outbox(&mut self) -> Option<Vec<crate::driver::Outgoing>> {
        self.outbox.take().map(|outbox| outbox.close())
    }
}
