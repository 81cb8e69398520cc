//! What a route holds: the one thing that its puller and its lanes share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::gate::Gate;
use super::job::{Claim, Job};
use super::wake::LaneWake;
use crate::memory::{KeyHash, KeyMap};
use crate::{Delivery, Message};

/// The messages of one route, from being received to being settled.
///
/// A message is handed to a lane unless an earlier one of its key is still being handled or waits for its retry; then
/// it waits behind that one. So a message that is stuck holds its own key and one lane, and nothing else.
pub(super) struct Board {
    state: Mutex<State>,
    lanes: Vec<Arc<LaneWake>>,
    /// Whoever pulls is woken through it: by every retry that is put off, and by what makes the room it waits for.
    pub(super) gate: Arc<Gate>,
    draining: AtomicBool,
    closed: AtomicBool,
    /// Whether a lane has to be woken when the route is resumed.
    parked: AtomicBool,
    max_messages: usize,
    max_bytes: usize,
}

struct State {
    /// What may be handled and waits for a lane.
    ready: VecDeque<Job>,
    /// For each key that is being handled or retried, the messages behind.
    keys: KeyMap<VecDeque<Job>>,
    delayed: BTreeMap<(Instant, u64), Job>,
    lanes: Vec<Place>,
    idle: Vec<usize>,
    /// When the first lease of what waits has to be extended, or earlier.
    renew_at: Option<Instant>,
    next_seq: u64,
    messages: usize,
    bytes: usize,
    /// Whether the puller waits for messages to be finished.
    puller_waits: bool,
}

/// A lane as the board sees it.
#[derive(Default)]
struct Place {
    next: Option<Job>,
    idle: bool,
    running: Option<Running>,
}

/// A message that a handler has.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) message: Arc<Message>,
    pub(super) attempt: u32,
    pub(super) since: Instant,
    pub(super) received: Instant,
    pub(super) lease: Option<Instant>,
    pub(super) doing: Doing,
}

/// What a lane does with its message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// A layer holds it back: a limit, a throttle.
    Held,
    Handling,
    Burying,
}

/// A copy of what is held, for the debug page.
pub(super) struct Snapshot {
    pub(super) running: Vec<(usize, Running)>,
    pub(super) ready: Vec<Held>,
    pub(super) behind: Vec<Held>,
    pub(super) delayed: Vec<(Instant, Held)>,
    pub(super) bytes: usize,
}

/// A message that waits.
pub(super) struct Held {
    pub(super) message: Arc<Message>,
    pub(super) attempt: u32,
    pub(super) received: Instant,
    pub(super) lease: Option<Instant>,
}

impl Board {
    pub(super) fn new(lanes: Vec<Arc<LaneWake>>, gate: Arc<Gate>, max_messages: usize, max_bytes: usize) -> Self {
        let state = State {
            ready: VecDeque::new(),
            keys: KeyMap::default(),
            delayed: BTreeMap::new(),
            lanes: lanes.iter().map(|_| Place { idle: true, ..Place::default() }).collect(),
            // The last is taken first, and the first lane is the one to be kept busiest.
            idle: (0..lanes.len()).rev().collect(),
            renew_at: None,
            next_seq: 0,
            messages: 0,
            bytes: 0,
            puller_waits: false,
        };
        Self {
            state: Mutex::new(state),
            lanes,
            gate,
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            max_messages,
            max_bytes,
        }
    }

    /// Ready when another message may be pulled.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until(cx, |state| self.has_room(state))
    }

    /// Ready when nothing is held.
    pub(super) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until(cx, |state| state.messages == 0)
    }

    /// Takes in a message; answers whether there is room for another.
    pub(super) fn push(&self, delivery: Delivery, received: Instant) -> bool {
        let mut job = Job::new(delivery, received);
        let mut state = self.lock();
        job.seq = state.next_seq;
        state.next_seq += 1;
        state.messages += 1;
        state.bytes += job.bytes;
        state.renew_by(job.renew.map(|(due, _)| due));
        let has_room = self.has_room(&state);
        if let Some(key) = job.key {
            if let Some(behind) = state.keys.get_mut(&key) {
                behind.push_back(job);
                return has_room;
            }
            state.keys.insert(key, VecDeque::new());
        }
        let woken = state.offer(job, &self.gate);
        drop(state);
        self.wake(woken);
        has_room
    }

    /// The next message for `lane`, and when its handler begins: `now`, if the lane has just looked at the clock.
    /// Without one, the lane is idle until it is woken.
    pub(super) fn take(&self, lane: usize, now: Option<Instant>) -> Option<(Job, Instant)> {
        let mut state = self.lock();
        let mut next = state.lanes[lane].next.take();
        if self.gate.is_paused() {
            // It came before the pause, and goes first after it.
            next.take().into_iter().for_each(|job| state.ready.push_front(job));
        } else {
            next = next.or_else(|| state.ready.pop_front());
        }
        let Some(job) = next else {
            if !state.lanes[lane].idle {
                state.lanes[lane].idle = true;
                state.idle.push(lane);
            }
            return None;
        };
        let since = now.unwrap_or_else(Instant::now);
        state.lanes[lane].running = Some(Running {
            message: job.delivery.shared(),
            attempt: job.attempt,
            since,
            received: job.received,
            lease: job.lease,
            doing: Doing::Handling,
        });
        Some((job, since))
    }

    /// Notes what `lane` does with its message now.
    pub(super) fn note(&self, lane: usize, doing: Doing) {
        if let Some(running) = &mut self.lock().lanes[lane].running {
            running.doing = doing;
        }
    }

    /// Notes that the lease of the message that `lane` has was extended.
    pub(super) fn renewed(&self, lane: usize, lease: Option<Instant>) {
        if let Some(running) = &mut self.lock().lanes[lane].running {
            running.lease = lease;
        }
    }

    /// Strikes a message off that has been settled: the next of its key may be handled. Answers what was known of it.
    pub(super) fn finish(&self, lane: usize, claim: &Claim) -> Option<Running> {
        let mut state = self.lock();
        let running = state.lanes[lane].running.take();
        state.messages -= 1;
        state.bytes -= claim.bytes;
        let woken = state.free_key(claim.key, &self.gate);
        let puller_waits = std::mem::take(&mut state.puller_waits);
        drop(state);
        self.wake(woken);
        // A puller that waits for its broker only would be woken in vain, once for each message.
        if puller_waits {
            self.gate.puller.wake();
        }
        running
    }

    /// Keeps a message for another attempt at `due`. Its key stays taken, its lane does not. Gives the message back
    /// when the route is stopping: nobody would look at the clock for it.
    pub(super) fn delay(&self, lane: usize, mut job: Job, due: Instant) -> Option<Job> {
        let mut state = self.lock();
        if self.is_draining() {
            return Some(job);
        }
        state.lanes[lane].running = None;
        job.attempt += 1;
        state.renew_by(job.renew.map(|(due, _)| due));
        state.delayed.insert((due, job.seq), job);
        drop(state);
        self.gate.puller.wake();
        None
    }

    /// Hands out what was held during a pause, and the retries that are due, and has leases extended; answers when to
    /// look again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.parked.load(Ordering::SeqCst) && !self.gate.is_paused() {
            self.parked.store(false, Ordering::SeqCst);
            self.lanes.iter().for_each(|lane| lane.wake_lane());
        }
        let mut state = self.lock();
        while !self.gate.is_paused()
            && !state.idle.is_empty()
            && let Some(job) = state.ready.pop_front()
        {
            let woken = state.offer(job, &self.gate);
            self.wake(woken);
        }
        let renew_at = state.renew();
        loop {
            let Some(first) = state.delayed.first_entry() else { return renew_at };
            let due = first.key().0;
            if due > Instant::now() {
                return renew_at.into_iter().chain([due]).min();
            }
            let job = first.remove();
            let woken = state.offer(job, &self.gate);
            self.wake(woken);
        }
    }

    /// Takes out everything that no handler has begun, youngest first, for the broker to have it back in order. From
    /// now on a failure returns its message.
    pub(super) fn drain(&self) -> Vec<Job> {
        let mut state = self.lock();
        self.draining.store(true, Ordering::SeqCst);
        let State { ready, keys, delayed, lanes, .. } = &mut *state;
        let mut jobs: Vec<Job> = ready.drain(..).collect();
        jobs.extend(keys.values_mut().flat_map(|behind| behind.drain(..)));
        jobs.extend(std::mem::take(delayed).into_values());
        jobs.extend(lanes.iter_mut().filter_map(|lane| lane.next.take()));
        state.messages -= jobs.len();
        state.bytes -= jobs.iter().map(|job| job.bytes).sum::<usize>();
        drop(state);
        jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.seq));
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
        // The workers and not the lanes: a lane that its worker is about to poll counts as woken already, and the worker
        // may have looked whether it is over just before.
        self.lanes.iter().for_each(|lane| lane.wake_worker());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let held = |job: &Job| Held {
            message: job.delivery.shared(),
            attempt: job.attempt,
            received: job.received,
            lease: job.lease,
        };
        let lanes = state.lanes.iter();
        Snapshot {
            running: lanes.clone().enumerate().filter_map(|(at, lane)| Some((at, lane.running.clone()?))).collect(),
            ready: lanes.filter_map(|lane| lane.next.as_ref()).chain(&state.ready).map(held).collect(),
            behind: state.keys.values().flatten().map(held).collect(),
            delayed: state.delayed.iter().map(|((due, _), job)| (*due, held(job))).collect(),
            bytes: state.bytes,
        }
    }

    /// How many messages are held.
    pub(super) fn messages(&self) -> usize {
        self.lock().messages
    }

    fn poll_until(&self, cx: &mut Context<'_>, done: impl Fn(&State) -> bool) -> Poll<()> {
        self.gate.puller.register(cx.waker());
        let mut state = self.lock();
        if done(&state) {
            return Poll::Ready(());
        }
        state.puller_waits = true;
        Poll::Pending
    }

    fn has_room(&self, state: &State) -> bool {
        state.messages < self.max_messages && state.bytes < self.max_bytes
    }

    fn wake(&self, lane: Option<usize>) {
        if let Some(lane) = lane {
            self.lanes[lane].wake_lane();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Of others, only leases are extended under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives a message to an idle lane, which has to be woken, or else leaves it for the first lane that is free; during
    /// a pause there is none.
    fn offer(&mut self, job: Job, gate: &Gate) -> Option<usize> {
        let idle = if gate.is_paused() { None } else { self.idle.pop() };
        let Some(lane) = idle else {
            self.ready.push_back(job);
            return None;
        };
        self.lanes[lane].idle = false;
        self.lanes[lane].next = Some(job);
        Some(lane)
    }

    fn renew_by(&mut self, due: Option<Instant>) {
        self.renew_at = self.renew_at.into_iter().chain(due).min();
    }

    /// Keeps the leases of what waits. Messages that a lane has are the lane's to keep.
    fn renew(&mut self) -> Option<Instant> {
        let (at, now) = (self.renew_at?, Instant::now());
        if at > now {
            return Some(at);
        }
        let waiting = self.ready.iter_mut().chain(self.keys.values_mut().flatten()).chain(self.delayed.values_mut());
        self.renew_at = waiting.filter_map(|job| job.keep(now)).min();
        self.renew_at
    }

    fn free_key(&mut self, key: Option<KeyHash>, gate: &Gate) -> Option<usize> {
        let key = key?;
        match self.keys.get_mut(&key)?.pop_front() {
            Some(next) => self.offer(next, gate),
            None => {
                self.keys.remove(&key);
                None
            }
        }
    }
}
