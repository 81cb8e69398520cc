//! A route at work: pulls from its subscriber, starts the workers, and stops in order.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use mainspring_daemon::{BoxFuture, Context as Cx, Latch, Shutdown};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::Settings;
use super::board::Board;
use super::gate::Gate;
use super::handle::RouteState;
use super::lane::{Lane, Shared};
use super::service::Erased;
use super::wake::{LaneWake, WorkerWake};
use super::worker::Worker;
use crate::brokers::Brokers;
use crate::error::Chain;
use crate::metrics::{Fate, Handled};
use crate::{Backoff, Error, ErrorKind, Subscriber};

/// The time that closing a subscriber has when there is none left.
pub(super) const LEAST_CLOSE: Duration = Duration::from_millis(250);

/// How long a subscriber may take to close when nobody is in a hurry.
const CLOSE: Duration = Duration::from_secs(5);

/// Messages that are pulled before others have a turn.
const TURN: usize = 64;

/// A route that is ready to run.
pub(super) struct Route {
    subscriber: Subscriber,
    shared: Arc<Shared>,
    workers: Vec<(Arc<WorkerWake>, Vec<Arc<LaneWake>>)>,
    service: Box<dyn Erased>,
    latch: Latch,
    stop: Shutdown,
}

/// Why pulling ended.
enum Ended {
    Stop,
    Drained,
    Closed,
    Failed(Error),
}

impl Route {
    pub(super) fn new(
        name: &'static str,
        subscriber: Subscriber,
        service: Box<dyn Erased>,
        settings: &Settings,
        cx: &Cx,
        stop: Shutdown,
        gate: Arc<Gate>,
    ) -> Self {
        let lanes = settings.concurrency.max(1);
        let threads = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        let workers: Vec<_> = (0..threads.clamp(1, lanes)).map(|_| Arc::new(WorkerWake::default())).collect();
        // Lane `i` is number `i / workers` of worker `i % workers`.
        let wakes: Vec<_> = (0..lanes)
            .map(|lane| Arc::new(LaneWake::new(lane / workers.len(), Arc::clone(&workers[lane % workers.len()]))))
            .collect();
        let shares = |worker: usize| wakes.iter().skip(worker).step_by(workers.len()).map(Arc::clone).collect();
        let workers = workers.iter().enumerate().map(|(at, wake)| (Arc::clone(wake), shares(at))).collect();
        let source = subscriber.endpoint().clone();
        let max_messages = lanes + settings.prefetch.unwrap_or(lanes);
        let shared = Shared {
            route: name,
            policy: settings.policy.clone(),
            dead_letter: settings.dead_letter.clone(),
            watcher: settings.watcher.clone(),
            capabilities: subscriber.capabilities(),
            metrics: Handled::new(name, &source),
            source,
            settled: cx.tally("deliveries_settled"),
            returned: cx.tally("deliveries_returned"),
            board: Board::new(wakes, gate, max_messages, settings.max_bytes),
        };
        let latch = cx.hold_ready(format!("route `{name}` does not receive yet"));
        Self { subscriber, shared: Arc::new(shared), workers, service, latch, stop }
    }

    /// What the debug page looks at. It does not keep the route alive.
    pub(super) fn board(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    pub(super) fn brokers(&self) -> Option<&Brokers> {
        self.subscriber.brokers()
    }

    pub(super) async fn run(mut self) -> Result<(), Error> {
        let mut workers = self.start();
        let ended = tokio::select! {
            ended = self.pull() => ended,
            // Handlers' panics are caught, so this is a fault of ours: better a dead daemon than a silent one.
            early = workers.join_next() => Ended::Failed(ended_early(early.and_then(Result::err))),
        };
        let stop = self.stop.clone();
        let board = &self.shared.board;
        let mut result = match ended {
            Ended::Failed(error) => Err(error),
            Ended::Stop => {
                if self.shared.capabilities.volatile && !self.subscriber.is_worked_off() {
                    error!(
                        route = self.shared.route,
                        "no time was left to work the queue in memory off: its messages are lost"
                    );
                }
                self.give_back_waiting();
                Ok(())
            }
            Ended::Drained => {
                self.give_back_waiting();
                Ok(())
            }
            Ended::Closed => {
                info!(route = self.shared.route, "subscriber was closed; finishing what was received");
                // Retries come from here, so somebody has to look at the clock until all is handled or a stop comes.
                tokio::select! {
                    () = handle_rest(&self.shared) => self.give_back_waiting(),
                    () = stop.requested() => self.give_back_waiting(),
                }
                Ok(())
            }
        };
        if result.is_err() {
            self.give_back_waiting();
        }
        // After a failure there may be no request to stop: then handlers have their own timeout to finish in.
        let orderly = result.is_ok() && !board.gate.is_draining();
        let grace = Instant::now() + self.shared.policy.timeout;
        tokio::select! {
            () = poll_fn(|cx| board.poll_empty(cx)) => {}
            () = stop.expired() => {}
            () = tokio::time::sleep_until(grace), if !orderly => {}
        }
        board.close();
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended
                && result.is_ok()
            {
                result = Err(ended_early(Some(error)));
            }
        }
        self.close().await;
        self.shared.board.gate.turn(RouteState::Ended);
        result
    }

    fn start(&mut self) -> JoinSet<()> {
        let count = self.workers.len();
        let mut tasks = JoinSet::new();
        for (at, (wake, lanes)) in self.workers.drain(..).enumerate() {
            let lane = |(place, wake)| Lane::new(at + place * count, self.service.slot(), wake);
            let lanes = lanes.into_iter().enumerate().map(lane).collect();
            tasks.spawn(Worker::new(Arc::clone(&self.shared), wake, lanes));
        }
        tasks
    }

    /// Pulls until told to stop, closed, or failed for good.
    async fn pull(&mut self) -> Ended {
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
                if paused || pause.is_some() || room.is_pending() {
                    return Poll::Pending;
                }
                // Looking at all of the above costs more than a message does: so several each time.
                let now = Instant::now();
                for pulled in 0..TURN {
                    let received = self.subscriber.poll_next(cx);
                    if !healthy && !matches!(received, Poll::Ready(Ok(None) | Err(_))) {
                        self.latch.ready();
                        healthy = true;
                    }
                    match received {
                        Poll::Ready(Ok(Some(delivery))) => {
                            errors = 0;
                            self.shared.metrics.inflight.inc();
                            if !self.shared.board.push(delivery, now) || !gate.is_running() {
                                break;
                            }
                        }
                        Poll::Ready(Ok(None)) => return Poll::Ready(Some(Ok(()))),
                        Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                        Poll::Pending if pulled > 0 => break,
                        Poll::Pending => {
                            nothing_new = nothing_new || (volatile && last_request.as_mut().poll(cx).is_ready());
                            if nothing_new && self.subscriber.is_worked_off() {
                                return self.shared.board.poll_empty(cx).map(|()| None);
                            }
                            return Poll::Pending;
                        }
                    }
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

    fn give_back_waiting(&self) {
        for job in self.shared.board.drain() {
            drop(job.part().0);
            self.shared.returned.add(1);
            self.shared.metrics.fate(Fate::Returned);
            self.shared.metrics.inflight.dec();
        }
    }

    async fn close(&mut self) {
        let now = Instant::now();
        let deadline = self.stop.deadline().map_or(now + CLOSE, |deadline| deadline.max(now + LEAST_CLOSE));
        let route = self.shared.route;
        match timeout_at(deadline, self.subscriber.close(deadline)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(route, error = %Chain(&error), "subscriber did not close cleanly"),
            Err(_) => warn!(route, "subscriber did not close in time"),
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // Workers are dropped later than this by the runtime; what waits for them goes back now.
        self.shared.board.drain().into_iter().for_each(drop);
        let left = i64::try_from(self.shared.board.messages()).unwrap_or(0);
        self.shared.metrics.inflight.dec_by(left);
        self.shared.board.gate.turn(RouteState::Ended);
    }
}

fn ended_early(cause: Option<JoinError>) -> Error {
    let error = Error::new(ErrorKind::Other, "route", "a worker ended early");
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

/// Waits until nothing is held, or the route is to be drained, handing out retries when they are due.
async fn handle_rest(shared: &Shared) {
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
