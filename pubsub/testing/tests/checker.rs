//! The history checker finds every planted bug, and nothing in a history that is right.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mainspring_pubsub::driver::Position;
use mainspring_pubsub::{Message, MessageId};
use mainspring_testing::history::{Finding, Journal, Kind, Order, Producer, Rules, Settlement, Tag, What};
use proptest::prelude::*;

/// What a broken broker, or a broken router, does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// Says that it has a message, and forgets it.
    ForgetsAMessage,
    /// Takes a nack for an ack.
    ForgetsANack,
    /// Says that a message is refused, and delivers it.
    DeliversWhatItRefused,
    /// Delivers a message that nobody published.
    InventsAMessage,
    /// Delivers a message that is not its own, without a tag.
    DeliversAStranger,
    /// Cuts the body.
    CutsTheBody,
    /// Delivers under another key.
    MixesUpKeys,
    /// Delivers again what was acked.
    RepeatsAnAckedMessage,
    /// Delivers to a second consumer what the first still has.
    LendsTwice,
    /// Lets a message overtake the one before it.
    Overtakes,
    /// Lets the next message of a key go while the one before waits for its retry.
    DoesNotHoldTheKey,
    /// Acks before the handler's end.
    AcksEarly,
    /// Commits beyond what is still out.
    CommitsBeyond,
    /// Loses one group's copy.
    ForgetsAGroup,
}

/// A broker with one partition and two groups, and with a bug if told so. Everything is written down.
struct Model {
    journal: Journal,
    producer: Producer,
    bug: Option<Bug>,
    groups: Vec<Group>,
    next_offset: u64,
    armed: bool,
}

struct Group {
    name: Arc<str>,
    ready: VecDeque<(u64, Message)>,
    out: BTreeMap<u64, (u64, Message)>,
    unsettled: BTreeMap<u64, ()>,
    delivered: u64,
}

/// What a run does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish {
        key: u8,
    },
    /// The broker refuses it.
    PublishBadly,
    Handle {
        group: usize,
        ok: bool,
    },
    /// A handler ends, and its ack is lost with its lease: the message comes again.
    LoseTheLease {
        group: usize,
    },
    Crash {
        group: usize,
    },
    Commit {
        group: usize,
    },
}

impl Model {
    fn new(bug: Option<Bug>) -> Self {
        let journal = Journal::new();
        let producer = journal.producer("p");
        let group = |name: &str| {
            journal.joined(name, "c");
            let (ready, out, unsettled) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
            Group { name: name.into(), ready, out, unsettled, delivered: 0 }
        };
        let groups = vec![group("g"), group("h")];
        Self { producer, bug, groups, next_offset: 0, armed: true, journal }
    }

    /// Whether to do this wrong now. A bug shows once.
    fn wrong(&mut self, bug: Bug) -> bool {
        let now = self.armed && self.bug == Some(bug);
        if now {
            self.armed = false;
        }
        now
    }

    fn publish(&mut self, key: u8, refuse: bool) {
        let message = Message::new(format!("body {}", self.next_offset)).with_key(format!("k{key}"));
        let (tag, message) = self.producer.begin(message);
        if refuse {
            self.journal.note(Some(tag), What::Refused { why: "too large".to_owned() });
            if !self.wrong(Bug::DeliversWhatItRefused) {
                return;
            }
        } else {
            self.journal.note(Some(tag), What::Published);
            if self.wrong(Bug::ForgetsAMessage) {
                return;
            }
        }
        let offset = self.next_offset;
        self.next_offset += 1;
        let forget = self.wrong(Bug::ForgetsAGroup);
        for group in self.groups.iter_mut().skip(usize::from(forget)) {
            group.ready.push_back((offset, message.clone()));
            group.unsettled.insert(offset, ());
        }
    }

    /// Hands out the first message whose key is free.
    fn deliver(&mut self, group: usize) -> Option<u64> {
        let overtake = self.groups[group].overtakable().filter(|_| self.wrong(Bug::Overtakes));
        let state = &self.groups[group];
        let busy: Vec<_> = state.out.values().map(|(_, message)| message.key.clone()).collect();
        let free = state.ready.iter().position(|(_, message)| !busy.contains(&message.key));
        let (offset, mut message) = self.groups[group].ready.remove(overtake.or(free)?)?;
        let original = message.clone();
        if self.wrong(Bug::CutsTheBody) {
            message.body = message.body.slice(..2);
        }
        if self.wrong(Bug::MixesUpKeys) {
            message.key = Some("another".to_owned());
        }
        if self.wrong(Bug::InventsAMessage) {
            message = message.with_attribute("history-seq", "4711").with_id(MessageId::new());
        }
        if self.wrong(Bug::DeliversAStranger) {
            message.attributes.clear();
        }
        let number = self.note_delivery(group, &message, offset);
        self.groups[group].out.insert(number, (offset, original.clone()));
        if self.wrong(Bug::LendsTwice) {
            self.note_delivery(group, &original, offset);
        }
        Some(number)
    }

    fn note_delivery(&mut self, group: usize, message: &Message, offset: u64) -> u64 {
        let group = &mut self.groups[group];
        group.delivered += 1;
        let consumer = "c".into();
        self.journal.delivered(&group.name, &consumer, message, Some(1), Some(Position::new(0, offset)))
    }

    fn handle(&mut self, group: usize, ok: bool) {
        let Some(number) = self.deliver(group) else { return };
        let Some((offset, message)) = self.groups[group].out.remove(&number) else { return };
        let tag = Tag::of(&message);
        if ok && self.wrong(Bug::AcksEarly) {
            self.journal.settled(tag.clone(), number, Settlement::Ack);
            self.journal.note(tag, What::Ended { delivery: number, ok });
            self.groups[group].unsettled.remove(&offset);
            return;
        }
        self.journal.note(tag.clone(), What::Ended { delivery: number, ok });
        let settlement = if ok { Settlement::Ack } else { Settlement::Return };
        self.journal.settled(tag, number, settlement);
        if ok {
            self.groups[group].unsettled.remove(&offset);
            if self.wrong(Bug::RepeatsAnAckedMessage) {
                self.groups[group].put_back(offset, message);
            }
        } else if self.wrong(Bug::ForgetsANack) {
            self.groups[group].unsettled.remove(&offset);
        } else if self.groups[group].has_key(&message) && self.wrong(Bug::DoesNotHoldTheKey) {
            self.groups[group].ready.push_back((offset, message));
        } else {
            self.groups[group].put_back(offset, message);
        }
    }

    fn lose_the_lease(&mut self, group: usize) {
        let Some(number) = self.deliver(group) else { return };
        let Some((offset, message)) = self.groups[group].out.remove(&number) else { return };
        let tag = Tag::of(&message);
        self.journal.note(tag.clone(), What::Revoked { delivery: number });
        self.groups[group].put_back(offset, message);
        self.journal.note(tag, What::Ended { delivery: number, ok: false });
    }

    /// The consumer dies with a message in its hands.
    fn crash(&mut self, group: usize) {
        let Some(number) = self.deliver(group) else { return };
        let Some((offset, message)) = self.groups[group].out.remove(&number) else { return };
        self.journal.note(Tag::of(&message), What::Revoked { delivery: number });
        self.groups[group].put_back(offset, message);
    }

    fn commit(&mut self, group: usize) {
        let lowest = self.groups[group].unsettled.keys().next().copied().unwrap_or(self.next_offset);
        let name = Arc::clone(&self.groups[group].name);
        self.journal.committed(&name, 0, lowest);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish { key } => self.publish(key, false),
            Step::PublishBadly => self.publish(0, true),
            Step::Handle { group, ok } => self.handle(group, ok),
            Step::LoseTheLease { group } => self.lose_the_lease(group),
            Step::Crash { group } => self.crash(group),
            Step::Commit { group } => self.commit(group),
        }
    }

    /// Handles everything that is left.
    fn finish(&mut self) {
        for group in 0..self.groups.len() {
            if self.bug == Some(Bug::CommitsBeyond) && self.groups[group].ready.len() > 1 {
                self.deliver(group);
                let name = Arc::clone(&self.groups[group].name);
                self.armed = false;
                self.journal.committed(&name, 0, self.next_offset);
                let out = std::mem::take(&mut self.groups[group].out);
                for (number, (offset, message)) in out {
                    self.journal.settled(Tag::of(&message), number, Settlement::Return);
                    self.groups[group].put_back(offset, message);
                }
            }
            while !self.groups[group].ready.is_empty() {
                self.handle(group, true);
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.journal.check(&Rules::default().order(Order::OneAtATime)).findings
    }
}

impl Group {
    fn put_back(&mut self, offset: u64, message: Message) {
        let place = self.ready.partition_point(|(other, _)| *other < offset);
        self.ready.insert(place, (offset, message));
    }

    /// A message that is not the first of its key.
    fn overtakable(&self) -> Option<usize> {
        self.ready
            .iter()
            .enumerate()
            .position(|(at, (_, message))| self.ready.iter().take(at).any(|(_, earlier)| earlier.key == message.key))
    }

    fn has_key(&self, message: &Message) -> bool {
        self.ready.iter().any(|(_, other)| other.key == message.key)
    }
}

/// A run in which everything happens.
fn eventful(bug: Option<Bug>) -> Model {
    let mut model = Model::new(bug);
    for round in 0..6 {
        for key in 0..3 {
            model.publish(key, false);
            model.publish(key, false);
        }
        model.publish(0, true);
        for group in [0, 1] {
            model.handle(group, true);
            model.handle(group, round % 2 == 0);
            model.handle(group, false);
            model.lose_the_lease(group);
            model.crash(group);
            model.commit(group);
        }
    }
    model.finish();
    model.commit(0);
    model
}

#[track_caller]
fn finds(bug: Bug, kind: Kind, says: &str) {
    let model = eventful(Some(bug));
    assert!(!model.armed, "{bug:?} never showed");
    let findings = model.findings();
    let found = findings.iter().any(|finding| finding.kind == kind && finding.evidence.contains(says));
    assert!(found, "{bug:?} should be found as {kind:?} with `{says}`: {findings:#?}");
    // One bug makes no avalanche: what is found is about few messages.
    assert!(findings.len() <= 6, "{bug:?}: {findings:#?}");
}

#[test]
fn the_same_run_without_a_bug_is_clean() {
    let model = eventful(None);
    assert_eq!(model.findings(), []);
    let verdict = model.journal.check(&Rules::default());
    assert_eq!((verdict.tried, verdict.published, verdict.duplicates), (42, 36, 0));
    assert!(verdict.delivered > 72);
}

#[test]
fn a_forgotten_message_is_lost() {
    finds(Bug::ForgetsAMessage, Kind::Lost, "never received it");
}

#[test]
fn a_nack_taken_for_an_ack_loses_its_message() {
    finds(Bug::ForgetsANack, Kind::Lost, "never finished");
}

#[test]
fn a_message_lost_to_one_group_is_lost() {
    finds(Bug::ForgetsAGroup, Kind::Lost, "`g` never received it");
}

#[test]
fn what_was_refused_is_unexpected() {
    finds(Bug::DeliversWhatItRefused, Kind::Unexpected, "was refused");
}

#[test]
fn what_was_never_published_is_unexpected() {
    finds(Bug::InventsAMessage, Kind::Unexpected, "p#4711 was never published");
}

#[test]
fn a_stranger_is_unexpected() {
    finds(Bug::DeliversAStranger, Kind::Unexpected, "without a tag");
}

#[test]
fn a_cut_body_is_altered() {
    finds(Bug::CutsTheBody, Kind::Altered, "another key or body");
}

#[test]
fn another_key_is_altered() {
    finds(Bug::MixesUpKeys, Kind::Altered, "another key or body");
}

#[test]
fn an_acked_message_that_comes_again_is_duplicated() {
    finds(Bug::RepeatsAnAckedMessage, Kind::Duplicated, "came again");
}

#[test]
fn a_message_that_two_have_at_once_is_duplicated() {
    finds(Bug::LendsTwice, Kind::Duplicated, "came again");
}

#[test]
fn a_message_that_overtakes_is_reordered() {
    finds(Bug::Overtakes, Kind::Reordered, "overtook");
}

#[test]
fn a_retry_that_is_overtaken_is_reordered() {
    finds(Bug::DoesNotHoldTheKey, Kind::Reordered, "overtook");
}

#[test]
fn an_ack_before_the_handlers_end_is_early() {
    finds(Bug::AcksEarly, Kind::AckedEarly, "before its handler's end");
}

#[test]
fn a_commit_beyond_what_is_out_is_found() {
    finds(Bug::CommitsBeyond, Kind::CommittedBeyond, "beyond what was not done");
}

#[test]
fn allowed_duplicates_are_counted_and_one_more_is_too_many() {
    let model = eventful(Some(Bug::RepeatsAnAckedMessage));
    let allowed = model.journal.check(&Rules::default().duplicates(1));
    assert_eq!((allowed.count(Kind::Duplicated), allowed.duplicates), (0, 1));
    let strict = model.journal.check(&Rules::default());
    assert_eq!((strict.count(Kind::Duplicated), strict.duplicates), (1, 1));
}

#[test]
fn a_publish_without_a_known_outcome_may_come_or_not() {
    for delivered in [false, true] {
        let journal = Journal::new();
        journal.joined("g", "c");
        let (tag, message) = journal.producer("p").begin(Message::new("a"));
        journal.note(Some(tag.clone()), What::Unknown);
        if delivered {
            let number = journal.delivered(&"g".into(), &"c".into(), &message, None, None);
            journal.settled(Some(tag), number, Settlement::Ack);
        }
        journal.check(&Rules::default()).assert_clean();
    }
}

#[test]
fn an_ack_that_the_broker_refused_does_not_finish_a_message() {
    let journal = Journal::new();
    journal.joined("g", "c");
    let (tag, message) = journal.producer("p").begin(Message::new("a"));
    journal.note(Some(tag.clone()), What::Published);
    let number = journal.delivered(&"g".into(), &"c".into(), &message, None, None);
    journal.settled(Some(tag.clone()), number, Settlement::Ack);
    journal.note(Some(tag), What::Confirmed { delivery: number, taken: false });
    let verdict = journal.check(&Rules::default());
    assert_eq!(verdict.count(Kind::Lost), 1, "{verdict}");
    assert!(verdict.to_string().contains("which the broker refused"), "{verdict}");
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8).prop_map(|key| Step::Publish { key }),
        1 => Just(Step::PublishBadly),
        6 => (0..2_usize, prop::bool::weighted(0.7)).prop_map(|(group, ok)| Step::Handle { group, ok }),
        1 => (0..2_usize).prop_map(|group| Step::LoseTheLease { group }),
        1 => (0..2_usize).prop_map(|group| Step::Crash { group }),
        1 => (0..2_usize).prop_map(|group| Step::Commit { group }),
    ]
}

proptest! {
    #[test]
    fn a_history_that_is_right_is_clean(steps in prop::collection::vec(step(), 0..200)) {
        let mut model = Model::new(None);
        steps.into_iter().for_each(|step| model.take(step));
        model.finish();
        prop_assert_eq!(model.findings(), vec![]);
    }

    #[test]
    fn a_message_less_is_always_found(steps in prop::collection::vec(step(), 0..200), group in 0..2_usize) {
        let mut model = Model::new(None);
        model.publish(0, false);
        steps.into_iter().for_each(|step| model.take(step));
        model.publish(1, false);
        // The newest message vanishes from one group, whatever happened before.
        let vanished = model.groups[group].ready.pop_back();
        prop_assert!(vanished.is_some());
        model.finish();
        let findings = model.findings();
        prop_assert_eq!(findings.len(), 1, "{:?}", findings);
        prop_assert_eq!(findings[0].kind, Kind::Lost);
    }

    #[test]
    fn a_delivery_more_is_always_found(steps in prop::collection::vec(step(), 0..200)) {
        let mut model = Model::new(None);
        model.publish(0, false);
        let message = model.groups[0].ready[0].1.clone();
        model.handle(0, true);
        steps.into_iter().for_each(|step| model.take(step));
        model.note_delivery(0, &message, 0);
        model.finish();
        prop_assert!(model.findings().iter().any(|finding| finding.kind == Kind::Duplicated));
    }
}
