//! A route at work: starts its workers, has messages pulled, and stops in order.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mainspring_daemon::{BoxError, Chain, Context, Latch, Shutdown};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::answers::{Answers, Coming};
use super::board::Board;
use super::gate::Gate;
use super::lane::Lane;
use super::pending::Pending;
use super::pull::{Ended, handle_rest};
use super::room::Room;
use super::route_state::RouteState;
use super::service::Erased;
use super::settings::Settings;
use super::shared::Shared;
use super::wake::{LaneWake, WorkerWake};
use super::worker::Worker;
use crate::driver::{Endpoint, Progress};
use crate::metrics::{Fate, Handled};
use crate::{Error, ErrorKind, Subscriber};

/// The time that closing a subscriber has when there is none left.
pub(super) const LEAST_CLOSE: Duration = Duration::from_millis(250);

/// How long a subscriber may take to begin transactions.
const BEGIN: Duration = Duration::from_secs(60);

/// How long a subscriber may take to close when nobody is in a hurry.
const CLOSE: Duration = Duration::from_secs(5);

/// A route that is ready to run.
pub(super) struct Route {
    pub(super) subscriber: Subscriber,
    pub(super) shared: Arc<Shared>,
    workers: Vec<(Arc<WorkerWake>, Vec<Arc<LaneWake>>)>,
    service: Box<dyn Erased>,
    pub(super) latch: Latch,
    pub(super) stop: Shutdown,
    coming: Option<Coming>,
    cx: Context,
}

impl Route {
    pub(super) fn new(route: Pending<()>, settings: &Settings, cx: &Context, stop: Shutdown, latch: Latch) -> Self {
        let Pending { name, from: subscriber, gate, batching, outbox: _, service } = route;
        let lanes = settings.lanes(batching.as_ref()).max(1);
        let threads = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        let workers: Vec<_> = (0..threads.clamp(1, lanes)).map(|_| Arc::new(WorkerWake::default())).collect();
        // Lane `i` is number `i / workers` of worker `i % workers`.
        let wakes: Vec<_> = (0..lanes)
            .map(|lane| Arc::new(LaneWake::new(lane / workers.len(), Arc::clone(&workers[lane % workers.len()]))))
            .collect();
        let shares = |worker: usize| wakes.iter().skip(worker).step_by(workers.len()).map(Arc::clone).collect();
        let lanes_of = workers.iter().enumerate().map(|(at, wake)| (Arc::clone(wake), shares(at))).collect();
        let source = subscriber.endpoint().clone();
        let max = Room { messages: lanes + settings.prefetch.unwrap_or(lanes), bytes: settings.max_bytes };
        let (answers, coming) = Answers::new();
        let shared = Shared {
            route: name,
            policy: settings.policy.clone(),
            in_batches: batching.is_some(),
            dead_letter: settings.dead_letter.clone(),
            watcher: settings.watcher.clone(),
            capabilities: subscriber.capabilities(),
            progress: subscriber.progress(),
            metrics: Handled::new(name, &source),
            source: Arc::new(source),
            exactly_once: settings.exactly_once,
            settled: cx.tally("deliveries_settled"),
            returned: cx.tally("deliveries_returned"),
            answers,
            board: Board::new(workers, wakes, gate, max),
        };
        if shared.capabilities.volatile
            && let Some(progress) = shared.progress.clone()
        {
            let source = Arc::clone(&shared.source);
            cx.on_flush(move || async move { nothing_waits(&*progress, &source) });
        }
        let shared = Arc::new(shared);
        let holder = Arc::downgrade(&shared);
        cx.held("deliveries_returned", move || {
            let held = |shared: Arc<Shared>| (shared.board.messages() + shared.answers.open()) as u64;
            holder.upgrade().map_or(0, held)
        });
        Self {
            subscriber,
            shared,
            workers: lanes_of,
            service: service(()),
            latch,
            stop,
            coming: Some(coming),
            cx: cx.clone(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.shared.route
    }

    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.shared.board.gate
    }

    /// What the debug page looks at. It does not keep the route alive.
    pub(super) fn view(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    pub(super) async fn run(mut self) -> Result<(), Error> {
        self.begin_transactions().await?;
        let mut workers = self.start();
        let mut listening = JoinSet::new();
        if let Some(coming) = self.coming.take() {
            listening.spawn(coming.listen(Arc::clone(&self.shared)));
        }
        let ended = tokio::select! {
            ended = self.pull() => ended,
            // Handlers' panics are caught, so this is a fault of ours: better a dead daemon than a silent one.
            early = workers.join_next() => Ended::Failed(ended_early(early.and_then(Result::err))),
        };
        let stop = self.stop.clone();
        let board = &self.shared.board;
        let mut result = match ended {
            Ended::Failed(error) => Err(error),
            Ended::Stop | Ended::Drained => {
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
        self.shared.answers.end();
        // A subscriber that is closed has had its answers.
        if timeout(LEAST_CLOSE, listening.join_next()).await.is_err() {
            let open = self.shared.answers.open();
            self.name_at_stop(format!(
                "the broker has not answered for {open} settled messages, which may be handled again"
            ));
        }
        self.shared.board.gate.turn(RouteState::Ended);
        result
    }

    /// Has what is handled be committed in transactions, if the route is to be exactly once.
    async fn begin_transactions(&mut self) -> Result<(), Error> {
        if !self.shared.exactly_once {
            return Ok(());
        }
        tokio::select! {
            begun = self.subscriber.begin_transactions(Instant::now() + BEGIN) => begun,
            // Nothing will be pulled.
            () = self.stop.requested() => Ok(()),
        }
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

    fn give_back_waiting(&self) {
        for job in self.shared.board.drain() {
            drop(job);
            self.shared.returned.add(1);
            self.shared.metrics.fate(Fate::Returned);
            self.shared.metrics.inflight.dec();
        }
    }

    /// Says that not everything that was settled has been taken.
    fn name_at_stop(&self, error: String) {
        let route = self.shared.route;
        warn!(route, error, "subscriber did not close cleanly");
        // A route that ends while others go on is not the end of the process.
        if self.stop.is_requested() {
            let error = format!("route `{route}`: {error}");
            self.cx.on_flush(move || async move { Err(error.into()) });
        }
    }

    async fn close(&mut self) {
        let now = Instant::now();
        let deadline = self.stop.deadline().map_or(now + CLOSE, |deadline| deadline.max(now + LEAST_CLOSE));
        let error = match timeout_at(deadline, self.subscriber.close(deadline)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Chain(&error).to_string(),
            Err(_) => "the subscriber did not close in time".to_owned(),
        };
        self.name_at_stop(error);
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

/// The last look at a broker that ends with the process. A route that was drained, or had no time left, leaves messages.
fn nothing_waits(progress: &dyn Progress, source: &Endpoint) -> Result<(), BoxError> {
    match progress.waiting() {
        None | Some(0) => Ok(()),
        Some(waiting) => {
            let (system, destination) = (source.system, &source.destination);
            Err(format!("{waiting} messages of {system}://{destination} were never handled, and end with the process")
                .into())
        }
    }
}

fn ended_early(cause: Option<JoinError>) -> Error {
    let error = Error::new(ErrorKind::Other, "route", "a worker ended early");
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}
