//! What a consumer holds: its partitions, and the messages that wait.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant as Clock;

use mainspring_pubsub::{Error, ErrorKind, Message};
use tokio::time::Instant;

use super::partition::Partition;
use crate::holes::Noted;

#[derive(Default)]
pub(super) struct State {
    /// Few, and looked up three times for each message: nothing that hashes.
    pub(super) partitions: BTreeMap<i32, Partition>,
    /// By order.
    pub(super) ready: VecDeque<Queued>,
    pub(super) delayed: BTreeMap<(Instant, u64), Queued>,
    /// Of what is ready or delayed.
    pub(super) bytes: usize,
    /// Of what handlers have left, until it is committed.
    pub(super) held_bytes: usize,
    pub(super) next_order: u64,
    pub(super) next_generation: u64,
    pub(super) waker: Option<Waker>,
    /// The thread has something to fetch and no room for it.
    pub(super) hungry: bool,
    /// The group has let us in.
    pub(super) joined: bool,
    pub(super) down: Option<(ErrorKind, String)>,
    /// What keeps messages from coming though brokers answer.
    pub(super) fault: Option<(ErrorKind, String)>,
    pub(super) failure: Option<Error>,
    pub(super) stop: Option<Clock>,
    pub(super) closed: bool,
    /// Why the last commit that somebody waited for did not land.
    pub(super) uncommitted: Option<Error>,
}

/// A message as the consumer has fetched it.
pub(super) struct Fetched {
    pub(super) offset: i64,
    pub(super) message: Message,
    pub(super) size: usize,
}

/// A message that waits.
pub(super) type Queued = Entry<Content>;
/// A message that is out.
pub(super) type Lent = Entry<Arc<Message>>;

/// The message of one that waits. It has its memory from whoever reads, not from the consumer's thread: that thread has the
/// client allocate all the time, and whoever gave the memory back would wait for it.
pub(super) enum Content {
    Fresh(Message),
    /// It was out before.
    Known(Arc<Message>),
}

pub(super) struct Entry<M> {
    pub(super) order: u64,
    pub(super) message: M,
    pub(super) size: usize,
    pub(super) attempt: u32,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) generation: u64,
    pub(super) number: u64,
}

/// How much may be fetched of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Fetched {
    /// What costs something is done here, before the lock is taken.
    pub(super) fn new(offset: i64, message: Message) -> Self {
        let size = message.size();
        Self { offset, message, size }
    }
}

impl State {
    /// Takes in a message, unless it is done; true when the log has been cut, and what came before is lost.
    pub(super) fn push(&mut self, number: i32, fetched: Fetched) -> bool {
        let Fetched { offset, message, size } = fetched;
        let passed = match self.partitions.get(&number) {
            Some(partition) if !partition.leaving && !self.closed => partition.has_passed(offset),
            _ => return false,
        };
        if passed {
            self.purge(|entry| entry.partition == number);
            let generation = self.generation();
            let old = self.partitions.insert(number, Partition::new(generation, Noted::default()));
            self.held_bytes -= old.map_or(0, |mut old| old.held.lose());
        }
        let Some(partition) = self.partitions.get_mut(&number) else { return passed };
        let Some(place) = partition.fetched(offset) else { return passed };
        let entry = Entry {
            order: self.next_order,
            message: Content::Fresh(message),
            size,
            attempt: 0,
            partition: number,
            offset,
            generation: partition.generation,
            number: place,
        };
        self.next_order += 1;
        self.bytes += size;
        self.ready.push_back(entry);
        passed
    }

    /// Puts a message back at its old place.
    pub(super) fn make_ready(&mut self, entry: Queued) {
        let place = self.ready.partition_point(|other| other.order < entry.order);
        self.ready.insert(place, entry);
    }

    /// Makes ready what has become due, and answers when to look again.
    pub(super) fn tick(&mut self) -> Option<Instant> {
        if self.delayed.is_empty() {
            return None;
        }
        let now = Instant::now();
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            let entry = first.remove();
            self.make_ready(entry);
        }
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// Those of the partitions that are ours.
    pub(super) fn of(&mut self, partitions: &[i32]) -> impl Iterator<Item = (&i32, &mut Partition)> {
        self.partitions.iter_mut().filter(|(number, _)| partitions.contains(number))
    }

    /// Forgets what waits.
    pub(super) fn purge(&mut self, gone: impl Fn(&Queued) -> bool) {
        self.ready.retain(|entry| !gone(entry));
        self.delayed.retain(|_, entry| !gone(entry));
        self.bytes = self.ready.iter().chain(self.delayed.values()).map(|entry| entry.size).sum();
    }

    /// Takes from the reader's run what it has of these partitions: it is out no longer.
    pub(super) fn take_back(&mut self, run: &mut VecDeque<Queued>, partitions: &[i32]) {
        run.retain(|entry| {
            let goes = partitions.contains(&entry.partition);
            if goes && let Some(partition) = owned(&mut self.partitions, entry) {
                partition.out -= 1;
            }
            !goes
        });
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.purge(|_| true);
    }

    /// A generation that no partition has had.
    pub(super) fn generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation
    }
}

/// The partition of an entry, if it is still the same loan.
pub(super) fn owned<'a, M>(
    partitions: &'a mut BTreeMap<i32, Partition>,
    entry: &Entry<M>,
) -> Option<&'a mut Partition> {
    partitions.get_mut(&entry.partition).filter(|partition| partition.generation == entry.generation)
}

impl Queued {
    pub(super) fn lend(self) -> Lent {
        self.with(|content| match content {
            Content::Fresh(message) => Arc::new(message),
            Content::Known(message) => message,
        })
    }
}

impl Lent {
    pub(super) fn wait(self) -> Queued {
        self.with(Content::Known)
    }
}

impl<M> Entry<M> {
    fn with<N>(self, change: impl FnOnce(M) -> N) -> Entry<N> {
        let Self { order, message, size, attempt, partition, offset, generation, number } = self;
        Entry { order, message: change(message), size, attempt, partition, offset, generation, number }
    }
}

impl<M> fmt::Debug for Entry<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}
