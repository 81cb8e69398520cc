//! Decides whether a history is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::{Event, Tag};
use super::finding::{Finding, Kind, Verdict};
use super::ledger::{Answer, Commit, Delivery, Ledger};

/// What a history is held against. The default is what a broker with order by key promises after an orderly run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// What is asked of the order of messages of one key and producer.
    pub order: Order,
    /// How many deliveries may be one too many, for runs with crashes. 0 by default.
    pub duplicates: usize,
    /// Whether every published message must be done at the end, in every group; else it only must have been delivered.
    /// True by default.
    pub finished: bool,
}

/// What is asked of the order of messages of one key and producer. Messages without a key have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Nothing.
    None,
    /// They are delivered for the first time in the order in which they were published.
    FirstDelivery,
    /// Each is done before the next one is delivered, retries included.
    OneAtATime,
}

impl Rules {
    /// Sets what is asked of the order.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Allows this many deliveries that are one too many.
    pub fn duplicates(mut self, duplicates: usize) -> Self {
        self.duplicates = duplicates;
        self
    }

    /// Asks only that every message was delivered, not that it was done.
    pub fn unfinished(mut self) -> Self {
        self.finished = false;
        self
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { order: Order::FirstDelivery, duplicates: 0, finished: true }
    }
}

/// Checks a history. Every group that ever had a consumer is held to have seen every message, so begin a journal
/// before the first publish that its groups should see.
pub fn check(events: &[Event], rules: &Rules) -> Verdict {
    let ledger = Ledger::read(events);
    let mut findings = Vec::new();
    strangers(&ledger, &mut findings);
    lost(&ledger, rules, &mut findings);
    order(&ledger, rules.order, &mut findings);
    early(&ledger, &mut findings);
    commits(&ledger, &mut findings);
    let mut duplicated = duplicates(&ledger);
    let duplicates = duplicated.len();
    if duplicates > rules.duplicates {
        findings.append(&mut duplicated);
    }
    let published = ledger.publishes.values().filter(|publish| publish.is_confirmed()).count();
    let (tried, delivered) = (ledger.publishes.len(), ledger.deliveries.len());
    Verdict { findings, tried, published, delivered, duplicates }
}

/// Messages that nobody published, or that are not what was published. However often one comes, it is told once.
fn strangers(ledger: &Ledger<'_>, findings: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for delivery in ledger.deliveries.values() {
        let fate = delivery.fate();
        let Some(tag) = delivery.tag else {
            findings.push(finding(Kind::Unexpected, None, format!("a message without a tag: {fate}")));
            continue;
        };
        let Some(publish) = ledger.publishes.get(tag).filter(|publish| publish.at < delivery.at) else {
            if told.insert((tag, Kind::Unexpected)) {
                findings.push(finding(Kind::Unexpected, Some(tag), format!("{tag} was never published: {fate}")));
            }
            continue;
        };
        if let Some((at, Answer::Refused(why))) = &publish.answer
            && told.insert((tag, Kind::Unexpected))
        {
            let evidence = format!("publishing {tag} was refused at event {at} ({why}), and yet: {fate}");
            findings.push(finding(Kind::Unexpected, Some(tag), evidence));
        }
        if publish.digest != delivery.digest && told.insert((tag, Kind::Altered)) {
            let evidence = format!("{tag} has another key or body than at its publish, event {}: {fate}", publish.at);
            findings.push(finding(Kind::Altered, Some(tag), evidence));
        }
    }
}

/// Messages that the broker had, and that a group never finished.
fn lost(ledger: &Ledger<'_>, rules: &Rules, findings: &mut Vec<Finding>) {
    for (tag, publish) in ledger.publishes.iter().filter(|(_, publish)| publish.is_confirmed()) {
        for group in &ledger.groups {
            let deliveries: Vec<_> = ledger.of(group, tag).collect();
            let finished = deliveries.iter().any(|delivery| delivery.done().is_some());
            let evidence = match deliveries.last() {
                None => format!(
                    "{} was published at event {}, and `{group}` never received it",
                    named(ledger, tag),
                    publish.at
                ),
                Some(last) if rules.finished && !finished => {
                    let times = deliveries.len();
                    format!(
                        "`{group}` never finished {}, in {times} deliveries; the last: {}",
                        named(ledger, tag),
                        last.fate()
                    )
                }
                Some(_) => continue,
            };
            findings.push(finding(Kind::Lost, Some(tag), evidence));
        }
    }
}

/// Deliveries of what was done, or of what was still out.
fn duplicates(ledger: &Ledger<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (group, tag) in ledger.by_message.keys() {
        let deliveries: Vec<_> = ledger.of(group, tag).collect();
        for (index, delivery) in deliveries.iter().enumerate() {
            let earlier = deliveries[..index].iter().rev().find(|earlier| {
                // What was handed back on purpose may come again, also after its handler succeeded.
                let handed_back = earlier.settled.is_some_and(|(at, how)| !how.is_final() && at < delivery.at);
                let out = earlier.over().is_none_or(|over| over > delivery.at);
                (!handed_back && earlier.handled_by(delivery.at)) || out
            });
            if let Some(earlier) = earlier {
                let (again, before) = (delivery.fate(), earlier.fate());
                let evidence = format!("{} came again: {again}; before: {before}", named(ledger, tag));
                findings.push(finding(Kind::Duplicated, Some(tag), evidence));
            }
        }
    }
    findings
}

fn order(ledger: &Ledger<'_>, order: Order, findings: &mut Vec<Finding>) {
    if order == Order::None {
        return;
    }
    // First deliveries by group, producer and key, in the order of their numbers.
    let mut lines: BTreeMap<_, Vec<(&Tag, &Delivery<'_>)>> = BTreeMap::new();
    for (group, tag) in ledger.by_message.keys() {
        let Some(key) = ledger.publishes.get(tag).and_then(|publish| publish.key) else { continue };
        if let Some(first) = ledger.of(group, tag).next() {
            lines.entry((*group, &tag.producer, key)).or_default().push((tag, first));
        }
    }
    for ((group, _, key), line) in lines {
        for pair in line.windows(2) {
            let [(earlier, first), (later, overtaking)] = pair else { continue };
            let overtaken = match order {
                Order::OneAtATime => !done_before(ledger, group, earlier, overtaking.at),
                _ => overtaking.at < first.at,
            };
            if overtaken {
                let (how, held) = (overtaking.fate(), last_before(ledger, group, earlier, overtaking.at));
                let evidence = format!("{later} overtook {earlier} of key `{key}`: {how}; {earlier}: {held}");
                findings.push(finding(Kind::Reordered, Some(later), evidence));
            }
        }
    }
}

fn done_before<'a>(ledger: &Ledger<'a>, group: &'a Arc<str>, tag: &'a Tag, at: usize) -> bool {
    ledger.of(group, tag).any(|delivery| delivery.done().is_some_and(|done| done < at))
}

fn last_before<'a>(ledger: &Ledger<'a>, group: &'a Arc<str>, tag: &'a Tag, at: usize) -> String {
    let before = ledger.of(group, tag).filter(|delivery| delivery.at < at).last();
    before.map_or_else(|| "not delivered by then".to_owned(), Delivery::fate)
}

/// Acks that came before the end of the handler they should have waited for. A delivery without any handler is its
/// consumer's own affair.
fn early(ledger: &Ledger<'_>, findings: &mut Vec<Finding>) {
    for delivery in ledger.deliveries.values() {
        let (Some((ended, _)), Some((settled, settlement))) = (delivery.ended, delivery.settled) else { continue };
        if settlement.is_final() && settled < ended {
            let message = delivery.tag.map_or_else(|| "a message".to_owned(), Tag::to_string);
            let evidence = format!("{message} was settled before its handler's end: {}", delivery.fate());
            findings.push(finding(Kind::AckedEarly, delivery.tag, evidence));
        }
    }
}

/// Commits that went past a delivery which was not done. Each such delivery is told once.
fn commits(ledger: &Ledger<'_>, findings: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for Commit { at, group, partition, next } in &ledger.commits {
        let beyond = ledger.deliveries.iter().find(|(_, delivery)| {
            let covered = delivery.position.is_some_and(|p| p.partition == *partition && p.offset < *next);
            let Some(tag) = delivery.tag else { return false };
            covered && delivery.group == *group && delivery.at < *at && !done_before(ledger, group, tag, *at)
        });
        if let Some((_, delivery)) = beyond.filter(|(number, _)| told.insert(*number)) {
            let evidence = format!(
                "`{group}` committed partition {partition} up to {next} at event {at}, beyond what was not done: {}",
                delivery.fate()
            );
            findings.push(finding(Kind::CommittedBeyond, delivery.tag, evidence));
        }
    }
}

fn named(ledger: &Ledger<'_>, tag: &Tag) -> String {
    match ledger.publishes.get(tag).and_then(|publish| publish.key) {
        Some(key) => format!("{tag} (key `{key}`)"),
        None => tag.to_string(),
    }
}

fn finding(kind: Kind, tag: Option<&Tag>, evidence: String) -> Finding {
    Finding { kind, tag: tag.cloned(), evidence }
}
