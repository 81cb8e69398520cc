//! What a route has received and no lane has yet.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::job::Job;
use super::ledger::Held;
use crate::memory::{KeyHash, KeyMap};

/// Messages that wait: for a lane, behind an earlier one of their key, or for their retry.
#[derive(Default)]
pub(super) struct Backlog {
    /// What may be handled and waits for a lane.
    ready: VecDeque<Job>,
    /// For each key that is ready, being handled or retried, the messages behind.
    keys: KeyMap<VecDeque<Job>>,
    delayed: BTreeMap<(Instant, u64), Job>,
    /// When the first lease has to be extended, or earlier.
    renew_at: Option<Instant>,
}

impl Backlog {
    /// Takes in a new message.
    pub(super) fn push(&mut self, job: Job) {
        self.renew_by(job.renew_at());
        if let Some(key) = job.key {
            match self.keys.entry(key) {
                Entry::Occupied(behind) => return behind.into_mut().push_back(job),
                Entry::Vacant(free) => drop(free.insert(VecDeque::new())),
            }
        }
        self.ready.push_back(job);
    }

    /// The next message to be handled.
    pub(super) fn pop(&mut self) -> Option<Job> {
        self.ready.pop_front()
    }

    /// How many messages wait for nothing but a lane.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Says that a message of `key` is done: the next one may be handled.
    pub(super) fn free(&mut self, key: KeyHash) {
        let Entry::Occupied(mut behind) = self.keys.entry(key) else { return };
        match behind.get_mut().pop_front() {
            Some(next) => self.ready.push_back(next),
            None => drop(behind.remove()),
        }
    }

    /// Keeps a message for another attempt at `due`. Its key stays taken.
    pub(super) fn delay(&mut self, job: Job, due: Instant) {
        self.renew_by(job.renew_at());
        self.delayed.insert((due, job.seq), job);
    }

    /// Has leases extended, and makes ready the retries that are due; answers when to look again.
    pub(super) fn look(&mut self) -> Option<Instant> {
        if self.renew_at.is_none() && self.delayed.is_empty() {
            return None;
        }
        let now = Instant::now();
        self.renew(now);
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let job = first.remove();
            self.ready.push_back(job);
        }
        let due = self.delayed.first_key_value().map(|((due, _), _)| *due);
        self.renew_at.into_iter().chain(due).min()
    }

    /// Takes out everything, youngest first.
    pub(super) fn drain(&mut self) -> Vec<Job> {
        let Self { ready, keys, delayed, .. } = self;
        let mut jobs: Vec<Job> = ready.drain(..).collect();
        jobs.extend(keys.values_mut().flat_map(|behind| behind.drain(..)));
        jobs.extend(std::mem::take(delayed).into_values());
        jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.seq));
        jobs
    }

    /// What waits for a lane, behind its key, and for its retry.
    pub(super) fn held(&self) -> (Vec<Held>, Vec<Held>, Vec<(Instant, Held)>) {
        let ready = self.ready.iter().map(Held::new).collect();
        let behind = self.keys.values().flatten().map(Held::new).collect();
        (ready, behind, self.delayed.iter().map(|((due, _), job)| (*due, Held::new(job))).collect())
    }

    fn renew_by(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.renew_at = Some(self.renew_at.map_or(at, |known| known.min(at)));
        }
    }

    /// Keeps the leases of what waits. Messages that a lane has are the lane's to keep.
    fn renew(&mut self, now: Instant) {
        if self.renew_at.is_none_or(|at| at > now) {
            return;
        }
        let waiting = self.ready.iter_mut().chain(self.keys.values_mut().flatten()).chain(self.delayed.values_mut());
        self.renew_at = waiting.filter_map(|job| job.keep(now)).min();
    }
}
