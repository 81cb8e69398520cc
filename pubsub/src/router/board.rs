//! What a route holds: the one thing that its puller and its lanes share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

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
    /// Whoever pulls: woken by every retry that is put off, and by what makes the room it waits for.
    puller: AtomicWaker,
    draining: AtomicBool,
    closed: AtomicBool,
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
    pub(super) burying: bool,
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
}

impl Board {
    pub(super) fn new(lanes: Vec<Arc<LaneWake>>, max_messages: usize, max_bytes: usize) -> Self {
        let state = State {
            ready: VecDeque::new(),
            keys: KeyMap::default(),
            delayed: BTreeMap::new(),
            lanes: lanes.iter().map(|_| Place { idle: true, ..Place::default() }).collect(),
            // The last is taken first, and the first lane is the one to be kept busiest.
            idle: (0..lanes.len()).rev().collect(),
            next_seq: 0,
            messages: 0,
            bytes: 0,
            puller_waits: false,
        };
        Self {
            state: Mutex::new(state),
            lanes,
            puller: AtomicWaker::new(),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            max_messages,
            max_bytes,
        }
    }

    /// Ready when another message may be pulled.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until(cx, |state| state.messages < self.max_messages && state.bytes < self.max_bytes)
    }

    /// Ready when nothing is held.
    pub(super) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until(cx, |state| state.messages == 0)
    }

    /// Takes in a message.
    pub(super) fn push(&self, delivery: Delivery) {
        let mut job = Job::new(delivery);
        let mut state = self.lock();
        job.seq = state.next_seq;
        state.next_seq += 1;
        state.messages += 1;
        state.bytes += job.bytes;
        if let Some(key) = job.key {
            if let Some(behind) = state.keys.get_mut(&key) {
                behind.push_back(job);
                return;
            }
            state.keys.insert(key, VecDeque::new());
        }
        let woken = state.offer(job);
        drop(state);
        self.wake(woken);
    }

    /// The next message for `lane`; without one, the lane is idle until it is woken.
    pub(super) fn take(&self, lane: usize) -> Option<Job> {
        let mut state = self.lock();
        let next = state.lanes[lane].next.take();
        let Some(job) = next.or_else(|| state.ready.pop_front()) else {
            if !state.lanes[lane].idle {
                state.lanes[lane].idle = true;
                state.idle.push(lane);
            }
            return None;
        };
        state.lanes[lane].running = Some(Running {
            message: job.delivery.shared(),
            attempt: job.attempt,
            since: Instant::now(),
            burying: false,
        });
        Some(job)
    }

    /// Notes that `lane` publishes the dead letter of its message.
    pub(super) fn burying(&self, lane: usize) {
        if let Some(running) = &mut self.lock().lanes[lane].running {
            running.burying = true;
        }
    }

    /// Strikes a message off that has been settled: the next of its key may be handled.
    pub(super) fn finish(&self, lane: usize, claim: &Claim) {
        let mut state = self.lock();
        state.lanes[lane].running = None;
        state.messages -= 1;
        state.bytes -= claim.bytes;
        let woken = state.free_key(claim.key);
        let puller_waits = std::mem::take(&mut state.puller_waits);
        drop(state);
        self.wake(woken);
        // A puller that waits for its broker only would be woken in vain, once for each message.
        if puller_waits {
            self.puller.wake();
        }
    }

    /// Keeps a message for another attempt at `due`. Its key stays taken, its lane does not. Gives the message back
    /// when the route is stopping: nobody would look at the clock for it.
    pub(super) fn delay(&self, lane: usize, mut job: Job, due: Instant) -> Result<(), Job> {
        let mut state = self.lock();
        if self.is_draining() {
            return Err(job);
        }
        state.lanes[lane].running = None;
        job.attempt += 1;
        state.delayed.insert((due, job.seq), job);
        drop(state);
        self.puller.wake();
        Ok(())
    }

    /// Hands out the retries that are due, and answers when the next one is.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let mut state = self.lock();
        loop {
            let first = state.delayed.first_entry()?;
            let due = first.key().0;
            if due > Instant::now() {
                return Some(due);
            }
            let job = first.remove();
            let woken = state.offer(job);
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
        self.puller.wake();
        jobs
    }

    /// Whether the route is stopping.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Tells the lanes to drop what they run, and to end.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.lanes.iter().for_each(|lane| lane.wake_lane());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let held = |job: &Job| Held { message: job.delivery.shared(), attempt: job.attempt };
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
        self.puller.register(cx.waker());
        let mut state = self.lock();
        if done(&state) {
            return Poll::Ready(());
        }
        state.puller_waits = true;
        Poll::Pending
    }

    fn wake(&self, lane: Option<usize>) {
        if let Some(lane) = lane {
            self.lanes[lane].wake_lane();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives a message to an idle lane, which has to be woken, or else leaves it for the first lane that is free.
    fn offer(&mut self, job: Job) -> Option<usize> {
        let Some(lane) = self.idle.pop() else {
            self.ready.push_back(job);
            return None;
        };
        self.lanes[lane].idle = false;
        self.lanes[lane].next = Some(job);
        Some(lane)
    }

    fn free_key(&mut self, key: Option<KeyHash>) -> Option<usize> {
        let key = key?;
        match self.keys.get_mut(&key)?.pop_front() {
            Some(next) => self.offer(next),
            None => {
                self.keys.remove(&key);
                None
            }
        }
    }
}
