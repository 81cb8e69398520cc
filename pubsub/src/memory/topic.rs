//! A topic: its groups, and what it keeps for groups that come later.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::faults::Faults;
use super::group::{Group, Ticket};
use super::lease::MemoryLease;
use super::parcel::Parcel;
use super::retained::Retained;
use super::{Config, SYSTEM, Shared};
use crate::delivery::{Delivery, Position};
use crate::driver::{AtOnce, Endpoint, Outcome, Receipt};
use crate::{Confirmation, Error, ErrorKind, Message};

/// A topic. How messages are rejected is in `dead_letters.rs`, how outboxes are published in `transaction.rs`.
pub(crate) struct Topic {
    name: String,
    config: Config,
    faults: Option<Faults>,
    broker: Weak<Shared>,
    state: Mutex<State>,
    /// Wakes publishers, one at a time: each that got in passes it on.
    room: Notify,
}

pub(super) struct State {
    next_seq: u64,
    retained: Retained,
    pub(super) groups: Vec<Group>,
}

impl Topic {
    pub(super) fn new(name: &str, config: Config, faults: Option<Faults>, broker: Weak<Shared>) -> Self {
        let state = State { next_seq: 0, retained: Retained::default(), groups: Vec::new() };
        Self { name: name.to_owned(), config, faults, broker, state: Mutex::new(state), room: Notify::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is published to, and which broker it belongs to.
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::new(SYSTEM, &*self.name).with_cluster(format!("{:p}", self.broker.as_ptr()))
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The broker, unless it was dropped.
    pub(super) fn broker(&self) -> Option<Arc<Shared>> {
        self.broker.upgrade()
    }

    /// Adds a message for every group, if none of them is full.
    pub(super) fn publish_at_once(&self, message: Message) -> AtOnce {
        let state = self.lock();
        // A fault counts each publish once, which is left to `publish`.
        if self.faults.is_some() || !self.fits(&state, message.size()) {
            return AtOnce::Waits(message);
        }
        let id = message.id.clone();
        let position = self.add_to(state, &Parcel::new(message), 1);
        AtOnce::Answered(Ok(Receipt::new(id).with_position(position)))
    }

    /// Adds a message for every group; waits until `deadline` for the slowest to have room.
    pub(super) async fn publish(&self, message: Message, deadline: Instant) -> Result<Receipt, Error> {
        self.expect_no_fault()?;
        let copies = self.faults.as_ref().map_or(1, Faults::copies);
        let (receipt, parcel) = (Receipt::new(message.id.clone()), Parcel::new(message));
        loop {
            let mut room = pin!(self.room.notified());
            // Listen before looking, so that room made in between is not missed.
            room.as_mut().enable();
            if let Some(position) = self.try_add(&parcel, copies) {
                self.room.notify_one();
                return Ok(receipt.with_position(position));
            }
            if timeout_at(deadline, room).await.is_err() {
                let what = format!("the topic `{}` is full: {}; nothing was published", self.name, self.fullest());
                return Err(Error::new(ErrorKind::Throttled, "publish", what).with_backend(SYSTEM));
            }
        }
    }

    /// The index of the group called `name`, made on first use.
    pub(super) fn join(&self, name: &str) -> usize {
        let mut state = self.lock();
        if let Some(group) = state.groups.iter().position(|group| group.name == name) {
            return group;
        }
        let mut group = Group::new(name);
        for (seq, parcel) in state.retained.iter() {
            group.push(*seq, parcel, None);
        }
        state.groups.push(group);
        state.groups.len() - 1
    }

    /// Lends the oldest message that is ready in `group`. Otherwise answers when to look again, if a clock decides
    /// that, and wakes `cx` when a message comes.
    pub(super) fn poll_lend(
        self: &Arc<Self>,
        group_index: usize,
        cx: &mut Context<'_>,
    ) -> Result<Delivery, Option<Instant>> {
        let mut state = self.lock();
        let group = &mut state.groups[group_index];
        let next = group.tick();
        let newest = self.faults.as_ref().is_some_and(Faults::reorders);
        let spare = group.spares.pop();
        let Some((ticket, entry)) = group.lend(self.config.visibility_timeout.get(), newest) else {
            group.spares.extend(spare);
            group.wait(cx.waker());
            return Err(next);
        };
        let lease = MemoryLease::reuse(spare, Arc::clone(self), group_index, ticket);
        let position = Position::new(0, entry.seq);
        Ok(Delivery::new(Arc::clone(&entry.parcel.message), lease).with_attempt(entry.attempts).with_position(position))
    }

    /// How many messages of `group` nobody has on loan.
    pub(super) fn waiting(&self, group: usize) -> usize {
        self.lock().groups[group].waiting()
    }

    pub(super) fn settle(
        &self,
        group: usize,
        ticket: Ticket,
        outcome: Outcome,
        lease: Box<MemoryLease>,
    ) -> Confirmation {
        let outcome = match outcome {
            Outcome::Reject { reason, letter } => return self.reject(group, ticket, reason, letter),
            outcome => outcome,
        };
        let is_lost = outcome == Outcome::Ack && self.faults.as_ref().is_some_and(Faults::loses_ack);
        let outcome = match is_lost {
            // The lease runs out by itself.
            true if self.expires(group, ticket).is_some() => return Confirmation::settled(),
            true => Outcome::Nack { after: None },
            false => outcome,
        };
        let mut state = self.lock();
        let group = &mut state.groups[group];
        let Some(mut entry) = group.take_back(ticket) else { return Confirmation::lost(SYSTEM) };
        group.keep_spare(lease);
        match outcome {
            Outcome::Nack { after: Some(after) } if !after.is_zero() => group.delay(entry, Instant::now() + after),
            Outcome::Nack { .. } => group.make_ready(entry),
            Outcome::Return => {
                entry.attempts -= 1;
                group.make_ready(entry);
            }
            Outcome::Ack | Outcome::Reject { .. } => group.settle(&entry),
        }
        let mut waiting = Vec::new();
        group.take_waiting_if_changed(&mut waiting);
        drop(state);
        self.wake(waiting);
        Confirmation::settled()
    }

    pub(super) fn extend(&self, group: usize, ticket: Ticket, by: Duration) -> Confirmation {
        if self.config.visibility_timeout.get().is_zero() {
            return Confirmation::settled();
        }
        match self.lock().groups[group].extend(ticket, Instant::now() + by) {
            true => Confirmation::settled(),
            false => Confirmation::lost(SYSTEM),
        }
    }

    pub(super) fn expires(&self, group: usize, ticket: Ticket) -> Option<Instant> {
        if self.config.visibility_timeout.get().is_zero() {
            return None;
        }
        self.lock().groups[group].expires(ticket)
    }

    /// Counts a publish, which a test may want to fail.
    pub(super) fn expect_no_fault(&self) -> Result<(), Error> {
        self.faults.as_ref().map_or(Ok(()), Faults::publish)
    }

    pub(super) fn has_room(&self, size: usize) -> bool {
        self.fits(&self.lock(), size)
    }

    /// Adds a message for every group, so many times; `None` when one of them has no room.
    pub(super) fn try_add(&self, parcel: &Parcel, copies: usize) -> Option<Position> {
        let state = self.lock();
        self.fits(&state, parcel.size).then(|| self.add_to(state, parcel, copies))
    }

    /// Adds a message, room or not.
    pub(super) fn add(&self, parcel: &Parcel) -> Position {
        self.add_to(self.lock(), parcel, 1)
    }

    fn fits(&self, state: &State, size: usize) -> bool {
        let (capacity, max_bytes) = (self.config.capacity, self.config.max_bytes.as_usize());
        state.groups.iter().all(|group| group.has_room(size, capacity, max_bytes))
    }

    fn add_to(&self, mut state: MutexGuard<'_, State>, parcel: &Parcel, copies: usize) -> Position {
        let due = self.faults.as_ref().and_then(Faults::delay_now).map(|delay| Instant::now() + delay);
        let first = state.next_seq;
        for _ in 0..copies {
            let seq = state.next_seq;
            state.next_seq += 1;
            state.groups.iter_mut().for_each(|group| group.push(seq, parcel, due));
            state.retained.push(seq, parcel, &self.config);
        }
        let mut waiting = Vec::new();
        state.groups.iter_mut().for_each(|group| group.take_waiting(&mut waiting));
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Position::new(0, first)
    }

    /// Changes a group that a message was taken back to, and wakes those whom it concerns.
    pub(super) fn put_back(&self, group: usize, lease: Option<Box<MemoryLease>>, change: impl FnOnce(&mut Group)) {
        let mut state = self.lock();
        let group = &mut state.groups[group];
        lease.into_iter().for_each(|lease| group.keep_spare(lease));
        change(group);
        let mut waiting = Vec::new();
        group.take_waiting_if_changed(&mut waiting);
        drop(state);
        self.wake(waiting);
    }

    fn wake(&self, waiting: Vec<Waker>) {
        waiting.into_iter().for_each(Waker::wake);
        self.room.notify_one();
    }

    /// Names the group that holds most, for errors.
    pub(super) fn fullest(&self) -> String {
        match self.lock().groups.iter().max_by_key(|group| group.messages()) {
            Some(group) => format!("its group `{}` holds {} unsettled messages", group.name, group.messages()),
            None => "it has no group".to_owned(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}
