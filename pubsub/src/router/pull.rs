//! The part of a route that receives.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use mainspring_daemon::{BoxFuture, Chain, Latch};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::warn;

use super::job::Job;
use super::route::Route;
use super::route_state::RouteState;
use super::shared::Shared;
use crate::{Backoff, Error, Subscriber};

/// Messages that are pulled before others have a turn.
const TURN: usize = 64;

/// Why pulling ended.
pub(super) enum Ended {
    Stop,
    Drained,
    Closed,
    Failed(Error),
}

impl Route {
    /// Pulls until told to stop, closed, or failed for good.
    pub(super) async fn pull(&mut self) -> Ended {
        let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(10));
        // What outlives the process is left where it is. What does not is worked off, for as long as there is time.
        let volatile = self.shared.capabilities.volatile;
        let stop: BoxFuture<()> =
            if volatile { Box::pin(self.stop.expired()) } else { Box::pin(self.stop.requested()) };
        let mut stop = pin!(stop);
        let mut requested = pin!(self.stop.requested());
        let mut last_request = pin!(self.stop.requests_finished());
        let mut nothing_new = false;
        let mut timer = Timer::default();
        let mut healthy = false;
        let mut arrived: Vec<Job> = Vec::with_capacity(TURN);
        let mut next_seq = 0;
        let (mut errors, mut pause) = (0, None);
        loop {
            let next = poll_fn(|cx| {
                if stop.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                // Also has a retry that is put off from now on wake us, and whoever turns the gate.
                let room = self.shared.board.poll_room(cx);
                let gate = &self.shared.board.gate;
                if gate.is_draining() {
                    return Poll::Ready(None);
                }
                if gate.is_paused() && volatile && requested.as_mut().poll(cx).is_ready() {
                    warn!(
                        route = self.shared.route,
                        "the pause ends with the stop: the queue in memory has to be worked off"
                    );
                    gate.turn(RouteState::Running);
                }
                let paused = gate.is_paused();
                loop {
                    let wake_at = self.shared.board.next_due().into_iter().chain(pause).min();
                    match wake_at {
                        Some(at) if timer.poll(at, cx).is_ready() => pause = pause.filter(|pause| *pause > at),
                        _ => break,
                    }
                }
                if paused && !healthy && pause.is_none() {
                    // Nobody looks whether it could receive, and that is as it should be.
                    self.latch.ready();
                }
                let Poll::Ready(mut room) = room else { return Poll::Pending };
                if paused || pause.is_some() {
                    return Poll::Pending;
                }
                let max_lease = self.shared.policy.max_lease;
                // Looking at all of the above, and handing messages over, costs more than a message does: so several
                // each time.
                let now = Instant::now();
                let received = loop {
                    match self.subscriber.poll_next(cx) {
                        Poll::Ready(Ok(Some(delivery))) => {
                            let job = Job::new(delivery, next_seq, now, max_lease);
                            next_seq += 1;
                            let more = room.take(job.bytes);
                            arrived.push(job);
                            if !more || arrived.len() == TURN || !gate.is_running() {
                                break None;
                            }
                        }
                        other => break Some(other),
                    }
                };
                let came = arrived.len();
                if !healthy && (came > 0 || !matches!(received, Some(Poll::Ready(_)))) {
                    healthy = came > 0 || receives(&self.subscriber, self.shared.route, &self.latch);
                    if healthy {
                        self.latch.ready();
                    }
                }
                if came > 0 {
                    errors = 0;
                    self.shared.metrics.inflight.inc_by(came as i64);
                    self.shared.board.push(arrived.drain(..));
                }
                match received {
                    Some(Poll::Ready(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Some(Poll::Ready(_)) => return Poll::Ready(Some(Ok(()))),
                    Some(Poll::Pending) if came == 0 => {
                        nothing_new = nothing_new || (volatile && last_request.as_mut().poll(cx).is_ready());
                        if nothing_new && self.shared.waiting() == 0 {
                            return self.shared.board.poll_empty(cx).map(|()| None);
                        }
                        return Poll::Pending;
                    }
                    _ => {}
                }
                // Others first, then round again: what was pulled has leases to look after, and there may be more.
                cx.waker().wake_by_ref();
                Poll::Pending
            });
            match next.await {
                None if self.shared.board.gate.is_draining() => return Ended::Drained,
                None => return Ended::Stop,
                Some(Ok(())) => return Ended::Closed,
                Some(Err(error)) => {
                    let route = self.shared.route;
                    self.latch.not_ready(format!("route `{route}` cannot receive: {}", Chain(&error)));
                    healthy = false;
                    if !error.is_retryable() {
                        return Ended::Failed(error);
                    }
                    errors += 1;
                    let wait = backoff.pause(errors);
                    warn!(route, error = %Chain(&error), retry_in = ?wait, "cannot receive; trying again");
                    pause = Some(Instant::now() + wait);
                }
            }
        }
    }
}

/// Whether a subscriber that has nothing just now would receive what came; if not, `latch` says why.
fn receives(subscriber: &Subscriber, route: &str, latch: &Latch) -> bool {
    match subscriber.unready() {
        Some(why) => {
            latch.not_ready(format!("route `{route}` does not receive yet: {why}"));
            false
        }
        None => true,
    }
}

/// Waits until nothing is held, or the route is to be drained, handing out retries when they are due.
pub(super) async fn handle_rest(shared: &Shared) {
    let mut timer = Timer::default();
    poll_fn(|cx| {
        let empty = shared.board.poll_empty(cx);
        while let Some(due) = shared.board.next_due() {
            if timer.poll(due, cx).is_pending() {
                break;
            }
        }
        if shared.board.gate.is_draining() { Poll::Ready(()) } else { empty }
    })
    .await;
}

/// One timer, set anew as needed.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}
