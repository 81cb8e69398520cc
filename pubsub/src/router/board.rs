//! What a route holds: the one thing that its puller and its lanes share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::backlog::Backlog;
use super::gate::Gate;
use super::job::Job;
use super::ledger::{Doing, Running, Snapshot};
use super::room::Room;
use super::wake::{LaneWake, WorkerWake};

/// The messages of one route, from being received to being settled.
///
/// A message is handed to a lane unless an earlier one of its key is still being handled or waits for its retry; then
/// it waits behind that one. So a message that is stuck holds its own key and one lane, and nothing else.
pub(super) struct Board {
    state: Mutex<State>,
    workers: Vec<Arc<WorkerWake>>,
    /// Lane `i` belongs to worker `i % workers`.
    lanes: Vec<Arc<LaneWake>>,
    /// Whoever pulls is woken through it: by every retry that is put off, and by what makes the room it waits for.
    pub(super) gate: Arc<Gate>,
    draining: AtomicBool,
    closed: AtomicBool,
    /// Whether a lane has to be woken when the route is resumed.
    parked: AtomicBool,
    max: Room,
}

struct State {
    backlog: Backlog,
    /// What each lane has.
    running: Vec<Option<Running>>,
    /// Workers with a free lane that have found nothing to do, and have to be woken when there is.
    idle: Vec<usize>,
    /// What is held, running or not.
    held: Room,
    /// Whether the puller waits for messages to be finished.
    puller_waits: bool,
    /// It is woken when no more messages than these are ready: once for many, and while the lanes still have some.
    low: usize,
}

impl Board {
    pub(super) fn new(workers: Vec<Arc<WorkerWake>>, lanes: Vec<Arc<LaneWake>>, gate: Arc<Gate>, max: Room) -> Self {
        let state = State {
            backlog: Backlog::default(),
            running: vec![None; lanes.len()],
            idle: Vec::new(),
            held: Room::default(),
            puller_waits: false,
            low: max.messages.saturating_sub(lanes.len()) / 2,
        };
        Self {
            state: Mutex::new(state),
            workers,
            lanes,
            gate,
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            max,
        }
    }

    /// Ready when messages may be pulled, with how many.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Room> {
        self.poll_until(cx, |held| held.left_of(self.max))
    }

    /// Ready when nothing is held.
    pub(super) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until(cx, |held| (held.messages == 0).then_some(()))
    }

    /// Takes in messages.
    pub(super) fn push(&self, jobs: impl Iterator<Item = Job>) {
        let mut state = self.lock();
        for job in jobs {
            state.held.messages += 1;
            state.held.bytes += job.bytes;
            state.backlog.push(job);
        }
        self.wake_idle(state);
    }

    /// Strikes off what `lane` has, if it has `settled` that, and puts the next message into `job`, whose handler begins
    /// `now`: the clock is looked at if the lane has not done so. When there is none, the lane's worker is woken as soon as
    /// there is.
    pub(super) fn next(&self, lane: usize, settled: bool, now: &mut Option<Instant>, job: &mut Option<Job>) {
        let mut state = self.lock();
        let puller_waits = settled && state.strike(lane);
        *job = if self.gate.is_paused() { None } else { state.backlog.pop() };
        if let Some(job) = job {
            state.running[lane] = Some(Running::new(job, *now.get_or_insert_with(Instant::now)));
        }
        // A worker that has got something may have no free lane left, so that waking it would be waking nobody.
        if job.is_none() || !state.idle.is_empty() {
            state.mark_idle(lane % self.workers.len(), job.is_none());
        }
        drop(state);
        self.wake_puller(puller_waits);
    }

    /// Strikes off what `lane` has settled, when it takes no other: the next of its key may be handled.
    pub(super) fn finish(&self, lane: usize) {
        let mut state = self.lock();
        let puller_waits = state.strike(lane);
        self.wake_idle(state);
        self.wake_puller(puller_waits);
    }

    /// Keeps a message for another attempt at `due`. Its key stays taken, its lane does not. Gives the message back
    /// when the route is stopping: nobody would look at the clock for it.
    pub(super) fn delay(&self, lane: usize, mut job: Job, due: Instant) -> Option<Job> {
        let mut state = self.lock();
        if self.is_draining() {
            return Some(job);
        }
        state.running[lane] = None;
        job.attempt += 1;
        state.backlog.delay(job, due);
        drop(state);
        self.gate.puller.wake();
        None
    }

    /// Notes what `lane` does with its message now.
    pub(super) fn note(&self, lane: usize, doing: Doing) {
        if let Some(running) = &mut self.lock().running[lane] {
            running.doing = doing;
        }
    }

    /// Notes that the lease of the message that `lane` has was extended.
    pub(super) fn renewed(&self, lane: usize, lease: Option<Instant>) {
        if let Some(running) = &mut self.lock().running[lane] {
            running.lease = lease;
        }
    }

    /// Hands out what was held during a pause, and the retries that are due, and has leases extended; answers when to
    /// look again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let paused = self.gate.is_paused();
        if !paused && self.parked.load(Ordering::SeqCst) {
            self.parked.store(false, Ordering::SeqCst);
            self.lanes.iter().for_each(|lane| lane.wake_lane());
        }
        let mut state = self.lock();
        let next = state.backlog.look();
        if !paused {
            self.wake_idle(state);
        }
        next
    }

    /// Takes out everything that no handler has begun, youngest first, for the broker to have it back in order. From
    /// now on a failure returns its message.
    pub(super) fn drain(&self) -> Vec<Job> {
        let mut state = self.lock();
        self.draining.store(true, Ordering::SeqCst);
        let jobs = state.backlog.drain();
        state.held.messages -= jobs.len();
        state.held.bytes -= jobs.iter().map(|job| job.bytes).sum::<usize>();
        drop(state);
        self.gate.puller.wake();
        // What a layer still holds back has not begun either, and its lane gives it back.
        self.lanes.iter().for_each(|lane| lane.wake_lane());
        jobs
    }

    /// Whether a lane whose message a layer holds has to wait for the route to be resumed. It is woken then.
    pub(super) fn parks(&self) -> bool {
        if !self.gate.is_paused() {
            return false;
        }
        self.parked.store(true, Ordering::SeqCst);
        // Whoever resumes looks at the mark afterwards, so one of the two sees the other.
        self.gate.is_paused()
    }

    /// Whether the route is stopping.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Tells the lanes to drop what they run, and to end.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.workers.iter().for_each(|worker| worker.waker.wake());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let (ready, behind, delayed) = state.backlog.held();
        let running = state.running.iter().enumerate();
        let running = running.filter_map(|(lane, running)| Some((lane, running.clone()?))).collect();
        Snapshot { running, ready, behind, delayed, bytes: state.held.bytes }
    }

    /// How many messages are held.
    pub(super) fn messages(&self) -> usize {
        self.lock().held.messages
    }

    fn poll_until<T>(&self, cx: &mut Context<'_>, done: impl Fn(Room) -> Option<T>) -> Poll<T> {
        self.gate.puller.register(cx.waker());
        let mut state = self.lock();
        match done(state.held) {
            Some(done) => Poll::Ready(done),
            None => {
                state.puller_waits = true;
                Poll::Pending
            }
        }
    }

    /// Wakes as many workers as there are messages for.
    fn wake_idle(&self, mut state: MutexGuard<'_, State>) {
        let waking = state.idle.len().min(state.backlog.ready());
        let first = state.idle.len() - waking;
        // Nobody waits for long: waking only has the runtime put a task into a queue.
        state.idle.drain(first..).for_each(|worker| self.workers[worker].waker.wake());
    }

    /// A puller that waits for its broker only would be woken in vain, once for each message.
    fn wake_puller(&self, waits: bool) {
        if waits {
            self.gate.puller.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Of others, only leases are extended under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes whether a worker has to be woken when there is something to do.
    fn mark_idle(&mut self, worker: usize, is_idle: bool) {
        self.idle.retain(|idle| *idle != worker);
        if is_idle {
            self.idle.push(worker);
        }
    }

    /// Strikes off a message that was settled; answers whether the puller is to be woken for that. It looks for room
    /// itself when a retry is put off: then nothing may be struck off for long.
    fn strike(&mut self, lane: usize) -> bool {
        let Some(settled) = self.running[lane].take() else { return false };
        self.held.messages -= 1;
        self.held.bytes -= settled.bytes;
        if let Some(key) = settled.key {
            self.backlog.free(key);
        }
        let woken = self.puller_waits && self.backlog.ready() <= self.low;
        self.puller_waits &= !woken;
        woken
    }
}
