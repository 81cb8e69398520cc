//! Who waits for which message's delivery.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rdkafka::error::RDKafkaErrorCode as Code;
use slab::Slab;
use tokio::sync::Notify;

/// Where a message was written, or why it was not.
pub(super) type Answer = Result<Written, Code>;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// The messages that were handed to the client and not answered for yet. A message carries the number of its slot to
/// the broker's answer and back: nothing is allocated for it here.
#[derive(Default)]
pub(super) struct Slots {
    state: Mutex<State>,
    /// Wakes those whom the client's full queue keeps waiting, one for each answer.
    pub(super) room: Notify,
    /// Wakes those who wait for the last answer.
    pub(super) idle: Notify,
}

#[derive(Default)]
struct State {
    slots: Slab<Slot>,
    unanswered: usize,
    /// How many wait for the client's queue to have room.
    waiting: usize,
}

enum Slot {
    Sent(Option<Waker>),
    Answered(Answer),
    /// Nobody waits any more; the answer frees the slot.
    Abandoned,
}

/// Waits for the answer to one message. Dropping it abandons the answer, not the message.
pub(super) struct Ticket<'a> {
    slots: &'a Slots,
    number: usize,
    open: bool,
}

impl Slots {
    /// A slot for a message that is about to be handed over, and its number.
    pub(super) fn reserve(&self) -> (usize, Ticket<'_>) {
        let mut state = self.lock();
        state.unanswered += 1;
        let number = state.slots.insert(Slot::Sent(None));
        (number, Ticket { slots: self, number, open: true })
    }

    /// Answers for the message of a slot.
    pub(super) fn answer(&self, number: usize, answer: Answer) {
        let mut state = self.lock();
        let waker = match state.slots.get_mut(number) {
            Some(slot @ Slot::Sent(_)) => match std::mem::replace(slot, Slot::Answered(answer)) {
                Slot::Sent(waker) => waker,
                _ => None,
            },
            Some(Slot::Abandoned) => {
                state.slots.remove(number);
                None
            }
            // The client answers once for each message.
            Some(Slot::Answered(_)) | None => return,
        };
        state.unanswered -= 1;
        let (idle, room_wanted) = (state.unanswered == 0, state.waiting > 0);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        if room_wanted {
            self.room.notify_one();
        }
        if idle {
            self.idle.notify_waiters();
        }
    }

    /// Counts somebody as waiting for the client's queue to have [`room`](Self::room), until dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.lock().waiting += 1;
        Waiting(self)
    }

    /// How many messages are not answered for yet.
    pub(super) fn unanswered(&self) -> usize {
        self.lock().unanswered
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for room.
pub(super) struct Waiting<'a>(&'a Slots);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

impl Ticket<'_> {
    /// Frees the slot of a message that the client did not take.
    pub(super) fn cancel(mut self) {
        self.open = false;
        let mut state = self.slots.lock();
        state.slots.remove(self.number);
        state.unanswered -= 1;
        if state.unanswered == 0 {
            drop(state);
            self.slots.idle.notify_waiters();
        }
    }
}

impl Future for Ticket<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = self.slots.lock();
        let slot = &mut state.slots[self.number];
        if let Slot::Sent(waker) = slot {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let answered = state.slots.remove(self.number);
        drop(state);
        self.open = false;
        match answered {
            Slot::Answered(answer) => Poll::Ready(answer),
            Slot::Sent(_) | Slot::Abandoned => Poll::Ready(Err(Code::Fail)),
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let mut state = self.slots.lock();
        match state.slots.get_mut(self.number) {
            Some(slot @ Slot::Sent(_)) => *slot = Slot::Abandoned,
            Some(_) => drop(state.slots.remove(self.number)),
            None => {}
        }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("unanswered", &self.unanswered()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: Answer = Ok(Written { partition: 1, offset: 2 });

    #[tokio::test]
    async fn the_answer_reaches_whoever_waits() {
        let slots = Slots::default();
        let (first, one) = slots.reserve();
        let (second, two) = slots.reserve();
        slots.answer(second, Err(Code::PurgeQueue));
        slots.answer(first, WRITTEN);
        assert_eq!(one.await, WRITTEN);
        assert_eq!(two.await, Err(Code::PurgeQueue));
        assert!(slots.lock().slots.is_empty());
    }

    #[tokio::test]
    async fn abandoned_slots_count_until_they_are_answered_and_are_used_again() {
        let slots = Slots::default();
        let (number, ticket) = slots.reserve();
        drop(ticket);
        assert_eq!(slots.unanswered(), 1);
        slots.answer(number, WRITTEN);
        assert_eq!((slots.unanswered(), slots.lock().slots.len()), (0, 0));

        let (number, ticket) = slots.reserve();
        slots.answer(number, WRITTEN);
        drop(ticket);
        slots.reserve().1.cancel();
        assert_eq!((slots.unanswered(), slots.lock().slots.len()), (0, 0));
    }
}
