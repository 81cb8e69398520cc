//! A topic: its groups, and what it keeps for groups that come later.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::faults::Faults;
use super::group::{Entry, Group, Ticket};
use super::lease::MemoryLease;
use super::{Config, KeyHash, SYSTEM, Shared, hash_key};
use crate::delivery::{Delivery, Position};
use crate::driver::{Endpoint, Outcome, Outgoing};
use crate::{Confirmation, Error, ErrorKind, Message};

/// How long a rejected message waits when there is no room for it among the dead letters.
const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);
/// How long a message waits whose outbox finds no room.
const FULL_PAUSE: Duration = Duration::from_secs(1);
const REASON: &str = "dead-letter-reason";

pub(crate) struct Topic {
    name: String,
    config: Config,
    faults: Option<Faults>,
    broker: Weak<Shared>,
    state: Mutex<State>,
    /// Wakes publishers, one at a time: each that got in passes it on.
    room: Notify,
}

struct State {
    next_seq: u64,
    /// The newest messages, for late groups.
    retained: VecDeque<Retained>,
    retained_bytes: usize,
    groups: Vec<Group>,
}

#[derive(Clone)]
struct Retained {
    seq: u64,
    message: Arc<Message>,
    key: Option<KeyHash>,
    size: usize,
}

impl Topic {
    pub(super) fn new(name: &str, config: Config, faults: Option<Faults>, broker: Weak<Shared>) -> Self {
        let state = State { next_seq: 0, retained: VecDeque::new(), retained_bytes: 0, groups: Vec::new() };
        Self { name: name.to_owned(), config, faults, broker, state: Mutex::new(state), room: Notify::new() }
    }

    /// What is published to, and which broker it belongs to.
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::new(SYSTEM, &*self.name).with_cluster(format!("{:p}", self.broker.as_ptr()))
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Adds a message for every group; waits until `deadline` for the slowest to have room.
    pub(super) async fn publish(&self, message: Arc<Message>, deadline: Instant) -> Result<Position, Error> {
        self.faults.as_ref().map_or(Ok(()), Faults::publish)?;
        let copies = self.faults.as_ref().map_or(1, Faults::copies);
        let (key, size) = (message.key.as_deref().map(hash_key), message.size());
        if let Some(position) = self.try_publish(&message, key, size, copies) {
            return Ok(position);
        }
        loop {
            let mut room = pin!(self.room.notified());
            // Listen before looking again, so that room made in between is not missed.
            room.as_mut().enable();
            if let Some(position) = self.try_publish(&message, key, size, copies) {
                self.room.notify_one();
                return Ok(position);
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
        for Retained { seq, message, key, size } in state.retained.iter().cloned() {
            group.push(Entry::new(seq, message, key, size, None));
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
        Ok(Delivery::new(Arc::clone(&entry.message), lease).with_attempt(entry.attempts).with_position(position))
    }

    /// Whether nothing is left in `group` but what is on loan.
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
            Outcome::Reject { reason } => return self.reject(group, ticket, &reason),
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
        let waiting = group.take_waiting_if_changed();
        drop(state);
        self.wake(waiting);
        Confirmation::settled()
    }

    /// Acks a message and publishes what its handler left, or does neither. Others may see the messages of the outbox one
    /// after the other, but none of them unless all will come.
    pub(super) fn commit(
        &self,
        group: usize,
        ticket: Ticket,
        outbox: Vec<Outgoing>,
        lease: Box<MemoryLease>,
    ) -> Confirmation {
        let mut state = self.lock();
        let Some(entry) = state.groups[group].take_back(ticket) else { return Confirmation::lost(SYSTEM) };
        // The lock of this topic is not held while that of another is taken.
        drop(state);
        let published = self.publish_all(outbox);
        let mut state = self.lock();
        let group = &mut state.groups[group];
        group.keep_spare(lease);
        match &published {
            Ok(()) => group.settle(&entry),
            Err(_) => group.delay(entry, Instant::now() + FULL_PAUSE),
        }
        let waiting = group.take_waiting_if_changed();
        drop(state);
        self.wake(waiting);
        published.map_or_else(Confirmation::failed, |()| Confirmation::settled())
    }

    /// Publishes all of an outbox, or nothing. There has to be room before; together they may go over it.
    fn publish_all(&self, outbox: Vec<Outgoing>) -> Result<(), Error> {
        let failed = |what: String| Error::new(ErrorKind::Throttled, "commit", what).with_backend(SYSTEM);
        let Some(broker) = self.broker.upgrade().filter(|_| !outbox.is_empty()) else {
            let dropped = || failed("the broker was dropped; nothing was published".to_owned());
            return if outbox.is_empty() { Ok(()) } else { Err(dropped()) };
        };
        let mut sending = Vec::with_capacity(outbox.len());
        for Outgoing { destination, message } in outbox {
            let topic = broker.topic(&destination.destination);
            let (key, size) = (message.key.as_deref().map(hash_key), message.size());
            self.faults.as_ref().map_or(Ok(()), Faults::publish)?;
            if !topic.has_room(size) {
                let what = format!("the topic `{}` is full: {}; nothing was published", topic.name, topic.fullest());
                return Err(failed(what));
            }
            sending.push((topic, Arc::new(message), key, size));
        }
        for (topic, message, key, size) in sending {
            topic.add(&message, key, size, 1);
        }
        Ok(())
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

    /// Moves a message to the dead letters.
    fn reject(&self, group: usize, ticket: Ticket, reason: &str) -> Confirmation {
        let mut state = self.lock();
        let Some(entry) = state.groups[group].take_back(ticket) else { return Confirmation::lost(SYSTEM) };
        // The lock of this topic is not held while that of another is taken.
        drop(state);
        let buried = self.bury(&entry.message, reason);
        let mut state = self.lock();
        let group = &mut state.groups[group];
        match &buried {
            Ok(()) => group.settle(&entry),
            Err(_) => group.delay(entry, Instant::now() + DEAD_LETTER_PAUSE),
        }
        let waiting = group.take_waiting_if_changed();
        drop(state);
        self.wake(waiting);
        buried.map_or_else(Confirmation::failed, |()| Confirmation::settled())
    }

    fn bury(&self, message: &Message, reason: &str) -> Result<(), Error> {
        let Some(broker) = self.broker.upgrade() else {
            warn!(topic = self.name, message_id = %message.id, reason, "message rejected after its broker was dropped");
            return Ok(());
        };
        let letter = Arc::new(message.clone().with_attribute(REASON, reason));
        let (key, size) = (letter.key.as_deref().map(hash_key), letter.size());
        let dead = broker.topic(&format!("{}.dead", self.name));
        match dead.try_publish(&letter, key, size, 1) {
            Some(_) => Ok(()),
            None => {
                let what = format!("no room for a dead letter: {}; the message is delivered again", dead.fullest());
                Err(Error::new(ErrorKind::Throttled, "reject", what).with_backend(SYSTEM))
            }
        }
    }

    /// Adds a message for every group, so many times; `None` when one of them has no room.
    fn try_publish(
        &self,
        message: &Arc<Message>,
        key: Option<KeyHash>,
        size: usize,
        copies: usize,
    ) -> Option<Position> {
        let state = self.lock();
        if !self.fits(&state, size) {
            return None;
        }
        Some(self.add_to(state, message, key, size, copies))
    }

    fn has_room(&self, size: usize) -> bool {
        self.fits(&self.lock(), size)
    }

    fn fits(&self, state: &State, size: usize) -> bool {
        let (capacity, max_bytes) = (self.config.capacity, self.config.max_bytes.as_usize());
        state.groups.iter().all(|group| group.has_room(size, capacity, max_bytes))
    }

    /// Adds a message, room or not.
    fn add(&self, message: &Arc<Message>, key: Option<KeyHash>, size: usize, copies: usize) -> Position {
        self.add_to(self.lock(), message, key, size, copies)
    }

    fn add_to(
        &self,
        mut state: MutexGuard<'_, State>,
        message: &Arc<Message>,
        key: Option<KeyHash>,
        size: usize,
        copies: usize,
    ) -> Position {
        let due = self.faults.as_ref().and_then(Faults::delay_now).map(|delay| Instant::now() + delay);
        let first = state.next_seq;
        let mut waiting = Vec::new();
        for _ in 0..copies {
            let seq = state.next_seq;
            state.next_seq += 1;
            state.retain(Retained { seq, message: Arc::clone(message), key, size }, &self.config);
            for group in &mut state.groups {
                group.push(Entry::new(seq, Arc::clone(message), key, size, due));
                waiting.append(&mut group.take_waiting());
            }
        }
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Position::new(0, first)
    }

    fn wake(&self, waiting: Vec<Waker>) {
        waiting.into_iter().for_each(Waker::wake);
        self.room.notify_one();
    }

    /// Names the group that holds most, for errors.
    fn fullest(&self) -> String {
        match self.lock().groups.iter().max_by_key(|group| group.messages()) {
            Some(group) => format!("its group `{}` holds {} unsettled messages", group.name, group.messages()),
            None => "it has no group".to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn retain(&mut self, newest: Retained, config: &Config) {
        if config.retention == 0 {
            return;
        }
        self.retained_bytes += newest.size;
        self.retained.push_back(newest);
        while self.retained.len() > config.retention || self.retained_bytes > config.max_bytes.as_usize() {
            let Some(oldest) = self.retained.pop_front() else { return };
            self.retained_bytes -= oldest.size;
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}
