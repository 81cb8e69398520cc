//! One group of a topic: what is ready, what is out, what waits.

use std::collections::{BTreeMap, VecDeque, hash_map};
use std::mem;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::KeyMap;
use super::lease::MemoryLease;
use super::parcel::Parcel;

/// Spare leases that a group keeps for reuse.
const SPARES: usize = 256;

/// The messages that a group has not settled yet.
///
/// For each key only the oldest unsettled message is in `ready`, `delayed` or `leased`; later ones queue up in `keys`.
/// That is all there is to order by key.
pub(super) struct Group {
    pub(super) name: String,
    /// Sorted by `seq`.
    ready: VecDeque<Entry>,
    keys: KeyMap<VecDeque<Entry>>,
    delayed: BTreeMap<(Instant, u64), Entry>,
    leased: Vec<Leased>,
    free: Vec<usize>,
    expiries: VecDeque<(Instant, Ticket)>,
    next_lease: u64,
    waiting: Vec<Waker>,
    messages: usize,
    bytes: usize,
    #[expect(clippy::vec_box, reason = "the boxes are what is kept: deliveries hold leases boxed")]
    pub(super) spares: Vec<Box<MemoryLease>>,
}

/// A message as one group sees it.
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) parcel: Parcel,
    pub(super) attempts: u32,
    /// Not to be handed out before.
    due: Option<Instant>,
}

/// What a lease is recognised by. The slot is used again, the number never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    slot: usize,
    number: u64,
}

/// A place for a message that is out.
#[derive(Default)]
struct Leased {
    entry: Option<Entry>,
    /// The number of the lease that it is, or was last, out on.
    number: u64,
    expires: Option<Instant>,
}

impl Group {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ready: VecDeque::new(),
            keys: KeyMap::default(),
            delayed: BTreeMap::new(),
            leased: Vec::new(),
            free: Vec::new(),
            expiries: VecDeque::new(),
            next_lease: 0,
            waiting: Vec::new(),
            messages: 0,
            bytes: 0,
            spares: Vec::new(),
        }
    }

    /// How many messages are not settled.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// How many messages nobody has on loan.
    pub(super) fn waiting(&self) -> usize {
        self.messages - self.leased.iter().filter(|leased| leased.entry.is_some()).count()
    }

    /// Whether there is room for a message of `size` bytes. An empty group has room for any.
    pub(super) fn has_room(&self, size: usize, capacity: usize, max_bytes: usize) -> bool {
        self.messages == 0 || (self.messages < capacity && self.bytes + size <= max_bytes)
    }

    /// Takes in a new message, which is younger than all others, not to be handed out before it is `due`.
    pub(super) fn push(&mut self, seq: u64, parcel: &Parcel, due: Option<Instant>) {
        self.messages += 1;
        self.bytes += parcel.size;
        let entry = Entry { seq, parcel: parcel.clone(), attempts: 0, due };
        if let Some(key) = parcel.key {
            match self.keys.entry(key) {
                hash_map::Entry::Occupied(behind) => return behind.into_mut().push_back(entry),
                hash_map::Entry::Vacant(free) => drop(free.insert(VecDeque::new())),
            }
        }
        match due {
            Some(due) => self.delay(entry, due),
            None => self.ready.push_back(entry),
        }
    }

    /// Lends out the oldest message that is ready, or the newest.
    pub(super) fn lend(&mut self, visibility: Duration, newest: bool) -> Option<(Ticket, &Entry)> {
        let entry = if newest { self.ready.pop_back() } else { self.ready.pop_front() }?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.leased.push(Leased::default());
            self.leased.len() - 1
        });
        let ticket = Ticket { slot, number: self.next_lease };
        self.next_lease += 1;
        let expires = (!visibility.is_zero()).then(|| Instant::now() + visibility);
        if let Some(expires) = expires {
            self.expire_at(expires, ticket);
        }
        let leased = &mut self.leased[slot];
        leased.number = ticket.number;
        leased.expires = expires;
        let entry = leased.entry.insert(entry);
        entry.attempts += 1;
        Some((ticket, entry))
    }

    /// Takes a message back; `None` when the lease is no longer valid.
    pub(super) fn take_back(&mut self, ticket: Ticket) -> Option<Entry> {
        let entry = self.leased(ticket)?.entry.take();
        self.free.push(ticket.slot);
        entry
    }

    /// Forgets a message that was taken back: the next of its key is ready.
    pub(super) fn settle(&mut self, entry: &Entry) {
        self.messages -= 1;
        self.bytes -= entry.parcel.size;
        let Some(key) = entry.parcel.key else { return };
        let hash_map::Entry::Occupied(mut behind) = self.keys.entry(key) else { return };
        match behind.get_mut().pop_front() {
            Some(next) => match next.due {
                Some(due) => self.delay(next, due),
                None => self.make_ready(next),
            },
            None => drop(behind.remove()),
        }
    }

    /// Makes a message that was taken back ready again, at its old place.
    pub(super) fn make_ready(&mut self, entry: Entry) {
        let place = self.ready.partition_point(|other| other.seq < entry.seq);
        self.ready.insert(place, entry);
    }

    /// Makes a message that was taken back ready again at `due`.
    pub(super) fn delay(&mut self, entry: Entry, due: Instant) {
        self.delayed.insert((due, entry.seq), entry);
    }

    /// Makes a lease last until `expires`; false when it is no longer valid.
    pub(super) fn extend(&mut self, ticket: Ticket, expires: Instant) -> bool {
        let Some(leased) = self.leased(ticket) else { return false };
        leased.expires = Some(expires);
        self.expire_at(expires, ticket);
        true
    }

    pub(super) fn expires(&self, ticket: Ticket) -> Option<Instant> {
        let leased = self.leased.get(ticket.slot)?;
        if leased.is_out(ticket) { leased.expires } else { None }
    }

    /// Makes ready what has become due by `now`, and answers when to look again.
    pub(super) fn tick(&mut self) -> Option<Instant> {
        if self.delayed.is_empty() && self.expiries.is_empty() {
            return None;
        }
        let now = Instant::now();
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            let entry = first.remove();
            self.make_ready(entry);
        }
        while let Some(&(at, ticket)) = self.expiries.front() {
            match self.expires(ticket) {
                Some(expires) if expires == at && at > now => break,
                Some(expires) if expires == at => {
                    self.expiries.pop_front();
                    if let Some(entry) = self.take_back(ticket) {
                        self.make_ready(entry);
                    }
                }
                // Settled since, or extended and so listed once more.
                _ => drop(self.expiries.pop_front()),
            }
        }
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let expiry = self.expiries.front().map(|(at, _)| *at);
        delayed.into_iter().chain(expiry).min()
    }

    pub(super) fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|known| known.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    /// Moves out everyone who waits for a message. All are woken, not one: one alone might never poll again.
    pub(super) fn take_waiting(&mut self, woken: &mut Vec<Waker>) {
        if !self.waiting.is_empty() {
            woken.append(&mut self.waiting);
        }
    }

    /// Moves out those who wait, if there is something for them now: a message, or another time to look again.
    pub(super) fn take_waiting_if_changed(&mut self, woken: &mut Vec<Waker>) {
        if !self.ready.is_empty() || !self.delayed.is_empty() {
            self.take_waiting(woken);
        }
    }

    pub(super) fn keep_spare(&mut self, spare: Box<MemoryLease>) {
        if self.spares.len() < SPARES {
            self.spares.push(spare);
        }
    }

    /// What is out on a lease; `None` when the lease is no longer valid.
    fn leased(&mut self, ticket: Ticket) -> Option<&mut Leased> {
        self.leased.get_mut(ticket.slot).filter(|leased| leased.is_out(ticket))
    }

    fn expire_at(&mut self, expires: Instant, ticket: Ticket) {
        // Settled leases stay listed until they are due; sweep them before they outnumber the others.
        if self.expiries.len() > 2 * self.leased.len() + 64 {
            let mut expiries = mem::take(&mut self.expiries);
            expiries.retain(|(at, ticket)| self.expires(*ticket) == Some(*at));
            self.expiries = expiries;
        }
        let place = self.expiries.partition_point(|(at, _)| *at <= expires);
        self.expiries.insert(place, (expires, ticket));
    }
}

impl Leased {
    fn is_out(&self, ticket: Ticket) -> bool {
        self.entry.is_some() && self.number == ticket.number
    }
}
