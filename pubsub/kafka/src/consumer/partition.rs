//! A partition that is ours, for as long as it is.

use mainspring_pubsub::driver::PartitionProgress;

use super::batch::{Held, Step};
use super::feed::MAX_GAP;
use crate::holes::{Noted, encode};
use crate::tracker::Tracker;

/// What is committed of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) partition: i32,
    pub(super) position: i64,
    /// What is done above the position.
    pub(super) metadata: String,
}

#[derive(Debug)]
pub(super) struct Partition {
    /// Tells this time of owning the partition from others: what belongs to another is lost.
    pub(super) generation: u64,
    /// How many of its messages are out.
    pub(super) out: usize,
    /// It is about to be taken away: nothing more is handed out.
    pub(super) leaving: bool,
    /// Something is done that was not committed.
    pub(super) dirty: bool,
    /// Nothing more is fetched until its lowest message is done.
    pub(super) far_ahead: bool,
    /// What handlers have left, to be committed with the position.
    pub(super) held: Held,
    /// Where the group would go on if we were gone, as far as the broker has said.
    pub(super) committed: Option<i64>,
    tracker: Tracker,
    noted: Noted,
}

impl Partition {
    /// A partition of which an earlier owner has `noted` messages as done.
    pub(super) fn new(generation: u64, noted: Noted) -> Self {
        Self {
            generation,
            out: 0,
            leaving: false,
            dirty: false,
            far_ahead: false,
            held: Held::default(),
            committed: None,
            tracker: Tracker::default(),
            noted,
        }
    }

    /// How far a transaction gets. What is done above the position is not noted: what its handlers left is not published.
    pub(super) fn step(&self, partition: i32) -> Option<Step> {
        let (position, before) = (self.tracker.position()?, self.tracker.first());
        if self.committed == Some(position) || (self.committed.is_none() && !self.dirty) {
            return None;
        }
        let metadata = encode(position, self.noted.from(self.tracker.next()?));
        let commit = Commit { partition, position, metadata };
        Some(Step { commit, generation: self.generation, before, outboxes: self.held.before(before) })
    }

    /// Takes in the next offset; answers its number in the tracker, `None` when it was done by an earlier owner.
    pub(super) fn fetched(&mut self, offset: i64) -> Option<u64> {
        let done = self.noted.take(offset);
        let number = self.tracker.fetched(offset, done);
        self.dirty |= done;
        if done { None } else { Some(number) }
    }

    /// Takes a message as done; true when there is something to fetch for that. Not for each that makes room for one.
    pub(super) fn finish(&mut self, number: u64) -> bool {
        self.tracker.finish(number);
        self.dirty = true;
        let goes_on = self.far_ahead && self.span() <= MAX_GAP / 2;
        self.far_ahead &= !goes_on;
        goes_on
    }

    /// Whether `offset` was fetched before. The log has then been cut and begun anew.
    pub(super) fn has_passed(&self, offset: i64) -> bool {
        self.tracker.next().is_some_and(|next| offset < next)
    }

    /// The lowest message that is not done; the one after the last when all are.
    pub(super) fn position(&self) -> Option<i64> {
        self.tracker.position()
    }

    /// How many messages there are from the lowest that is not done to the last.
    pub(super) fn span(&self) -> usize {
        self.tracker.span()
    }

    /// How far it is, for people; of what is not done, the first `gaps` runs.
    pub(super) fn progress(&self, number: u32, gaps: usize) -> PartitionProgress {
        let offset = |offset: i64| u64::try_from(offset).ok();
        let mut progress = PartitionProgress::default();
        progress.partition = number;
        progress.committed = self.committed.and_then(offset);
        progress.low = self.tracker.position().and_then(offset);
        progress.high = self.tracker.next().and_then(offset);
        progress.waits = self.far_ahead;
        progress.gaps =
            self.tracker.open().take(gaps).filter_map(|run| offset(run.first).zip(offset(run.last))).collect();
        progress
    }

    /// What there is to commit.
    pub(super) fn commit(&mut self, partition: i32) -> Option<Commit> {
        self.dirty = false;
        let position = self.tracker.position()?;
        let ahead = self.noted.from(self.tracker.next()?);
        let metadata = encode(position, self.tracker.done().chain(ahead).filter(|run| run.first > position));
        Some(Commit { partition, position, metadata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fetches offsets up to `end` and finishes all but `stuck`.
    fn handle(partition: &mut Partition, offsets: std::ops::Range<i64>, stuck: &[i64]) -> Vec<i64> {
        let fetched = offsets.filter_map(|offset| Some((offset, partition.fetched(offset)?)));
        let fetched: Vec<_> = fetched.collect();
        for (_, number) in fetched.iter().filter(|(offset, _)| !stuck.contains(offset)) {
            partition.finish(*number);
        }
        fetched.into_iter().map(|(offset, _)| offset).collect()
    }

    #[test]
    fn the_next_owner_gets_what_was_not_done() {
        let mut first = Partition::new(1, Noted::default());
        handle(&mut first, 0..1000, &[5, 500]);
        let commit = first.commit(0).unwrap();
        assert_eq!(commit.position, 5);

        let mut second = Partition::new(2, Noted::decode(commit.position, &commit.metadata));
        assert_eq!(handle(&mut second, 5..1010, &[]), [5, 500].into_iter().chain(1000..1010).collect::<Vec<_>>());
        assert_eq!(second.commit(0).unwrap(), Commit { partition: 0, position: 1010, metadata: String::new() });
    }

    #[test]
    fn notes_about_what_was_not_fetched_yet_are_kept() {
        let mut first = Partition::new(1, Noted::default());
        handle(&mut first, 0..1000, &[5]);
        let commit = first.commit(0).unwrap();
        let mut second = Partition::new(2, Noted::decode(5, &commit.metadata));
        handle(&mut second, 5..50, &[5]);
        assert_eq!(second.commit(0).unwrap(), commit);
    }
}
