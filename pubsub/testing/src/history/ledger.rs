//! A journal, sorted by message and delivery: what checks look things up in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainspring_pubsub::driver::Position;

use super::event::{Event, Settlement, Tag, What};

#[derive(Default)]
pub(super) struct Ledger<'a> {
    pub(super) publishes: BTreeMap<&'a Tag, Publish<'a>>,
    pub(super) deliveries: BTreeMap<u64, Delivery<'a>>,
    pub(super) groups: BTreeSet<&'a Arc<str>>,
    pub(super) commits: Vec<Commit<'a>>,
    /// The deliveries of each message to each group, in order.
    pub(super) by_message: BTreeMap<(&'a Arc<str>, &'a Tag), Vec<u64>>,
}

pub(super) struct Publish<'a> {
    pub(super) at: usize,
    pub(super) key: Option<&'a str>,
    pub(super) digest: u64,
    pub(super) answer: Option<(usize, Answer<'a>)>,
}

pub(super) enum Answer<'a> {
    Published,
    Refused(&'a str),
    Unknown,
}

pub(super) struct Delivery<'a> {
    pub(super) at: usize,
    pub(super) tag: Option<&'a Tag>,
    pub(super) group: &'a Arc<str>,
    pub(super) consumer: &'a Arc<str>,
    pub(super) attempt: Option<u32>,
    pub(super) position: Option<Position>,
    pub(super) digest: u64,
    pub(super) ended: Option<(usize, bool)>,
    pub(super) settled: Option<(usize, Settlement)>,
    pub(super) confirmed: Option<(usize, bool)>,
    pub(super) revoked: Option<usize>,
}

pub(super) struct Commit<'a> {
    pub(super) at: usize,
    pub(super) group: &'a Arc<str>,
    pub(super) partition: u32,
    pub(super) next: u64,
}

impl<'a> Ledger<'a> {
    pub(super) fn read(events: &'a [Event]) -> Self {
        let mut ledger = Self::default();
        for (at, event) in events.iter().enumerate() {
            ledger.enter(at, event);
        }
        ledger
    }

    fn enter(&mut self, at: usize, event: &'a Event) {
        let tag = event.tag.as_ref();
        let delivery = |ledger: &mut Self, number: &u64, change: &dyn Fn(&mut Delivery<'a>)| {
            if let Some(delivery) = ledger.deliveries.get_mut(number) {
                change(delivery);
            }
        };
        match &event.what {
            What::Publish { key, digest } => {
                let Some(tag) = tag else { return };
                let publish = Publish { at, key: key.as_deref(), digest: *digest, answer: None };
                self.publishes.insert(tag, publish);
            }
            What::Published => self.answer(tag, at, Answer::Published),
            What::Refused { why } => self.answer(tag, at, Answer::Refused(why)),
            What::Unknown => self.answer(tag, at, Answer::Unknown),
            What::Joined { group, .. } => drop(self.groups.insert(group)),
            What::Delivered { delivery, group, consumer, attempt, position, digest } => {
                self.groups.insert(group);
                if let Some(tag) = tag {
                    self.by_message.entry((group, tag)).or_default().push(*delivery);
                }
                let (attempt, position, digest) = (*attempt, *position, *digest);
                let (ended, settled, confirmed, revoked) = (None, None, None, None);
                let new = Delivery {
                    at,
                    tag,
                    group,
                    consumer,
                    attempt,
                    position,
                    digest,
                    ended,
                    settled,
                    confirmed,
                    revoked,
                };
                self.deliveries.insert(*delivery, new);
            }
            What::Ended { delivery: number, ok } => {
                delivery(self, number, &|delivery| delivery.ended = delivery.ended.or(Some((at, *ok))));
            }
            What::Settled { delivery: number, settlement } => {
                delivery(self, number, &|delivery| delivery.settled = delivery.settled.or(Some((at, *settlement))));
            }
            What::Confirmed { delivery: number, taken } => {
                delivery(self, number, &|delivery| delivery.confirmed = delivery.confirmed.or(Some((at, *taken))));
            }
            What::Revoked { delivery: number } => {
                delivery(self, number, &|delivery| delivery.revoked = delivery.revoked.or(Some(at)));
            }
            What::Committed { group, partition, next } => {
                self.commits.push(Commit { at, group, partition: *partition, next: *next });
            }
        }
    }

    fn answer(&mut self, tag: Option<&'a Tag>, at: usize, answer: Answer<'a>) {
        if let Some(publish) = tag.and_then(|tag| self.publishes.get_mut(tag)) {
            publish.answer = publish.answer.take().or(Some((at, answer)));
        }
    }

    /// The deliveries of a message to a group, in order.
    pub(super) fn of(&self, group: &'a Arc<str>, tag: &'a Tag) -> impl Iterator<Item = &Delivery<'a>> {
        self.by_message.get(&(group, tag)).into_iter().flatten().filter_map(|number| self.deliveries.get(number))
    }
}

impl Publish<'_> {
    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self.answer, Some((_, Answer::Published)))
    }
}

impl Delivery<'_> {
    /// When the message was done with by this delivery: settled for good, and the broker did not say no.
    pub(super) fn done(&self) -> Option<usize> {
        let refused = matches!(self.confirmed, Some((_, false)));
        self.settled.filter(|(_, settlement)| settlement.is_final() && !refused).map(|(at, _)| at)
    }

    /// When the loan was over, in whatever way. The broker's refusal of a settlement says that it was over before,
    /// nobody knows when.
    pub(super) fn over(&self) -> Option<usize> {
        if matches!(self.confirmed, Some((_, false))) {
            return Some(self.at);
        }
        let settled = self.settled.map(|(at, _)| at);
        settled.into_iter().chain(self.revoked).min()
    }

    /// Whether everything that the message needed had been done at `at`, whatever the broker knew of it.
    pub(super) fn handled_by(&self, at: usize) -> bool {
        self.done().is_some_and(|done| done < at) || matches!(self.ended, Some((ended, true)) if ended < at)
    }

    /// What became of it, in words.
    pub(super) fn fate(&self) -> String {
        let mut fate = format!("delivered to `{}` of `{}` at event {}", self.consumer, self.group, self.at);
        if let Some(attempt) = self.attempt {
            fate.push_str(&format!(" (attempt {attempt})"));
        }
        if let Some((at, ok)) = self.ended {
            fate.push_str(&format!(", handler {} at {at}", if ok { "succeeded" } else { "failed" }));
        }
        match self.settled {
            Some((at, settlement)) => fate.push_str(&format!(", {} at {at}", settlement.as_str())),
            None => fate.push_str(", never settled"),
        }
        if let Some((at, false)) = self.confirmed {
            fate.push_str(&format!(", which the broker refused at {at}"));
        }
        if let Some(at) = self.revoked {
            fate.push_str(&format!(", revoked at {at}"));
        }
        fate
    }
}
