//! Which of a partition's messages are done.

use std::collections::VecDeque;

use crate::holes::Run;

/// The offsets that were fetched and are not yet all done below. Only offsets that were fetched count: ones that the
/// log has lost to compaction, or that never were messages, hold nothing up.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    /// By rising offset; the first is not done.
    entries: VecDeque<Entry>,
    /// The number of the first entry. Numbers count what was fetched, without gaps.
    first: u64,
    /// The offset after the last one that was fetched.
    next: Option<i64>,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    done: bool,
}

impl Tracker {
    /// Takes in the next offset; answers the number by which to [`finish`](Self::finish) it. Offsets rise.
    pub(crate) fn fetched(&mut self, offset: i64, done: bool) -> u64 {
        debug_assert!(self.next.is_none_or(|next| next <= offset), "offsets rise");
        self.next = Some(offset + 1);
        self.entries.push_back(Entry { offset, done });
        let number = self.first + self.entries.len() as u64 - 1;
        self.pass();
        number
    }

    /// Marks an offset as done.
    pub(crate) fn finish(&mut self, number: u64) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            entry.done = true;
            self.pass();
        }
    }

    /// Where a new owner has to go on: the lowest offset that is not done, else the one after the last. `None` before
    /// anything was fetched.
    pub(crate) fn position(&self) -> Option<i64> {
        self.entries.front().map(|entry| entry.offset).or(self.next)
    }

    /// The number of the lowest that is not done: those with lower ones all are.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The offset after the last one that was fetched.
    pub(crate) fn next(&self) -> Option<i64> {
        self.next
    }

    /// How many messages there are from the lowest that is not done to the last.
    pub(crate) fn span(&self) -> usize {
        self.entries.len()
    }

    /// What is done above the position, lowest first.
    pub(crate) fn done(&self) -> impl Iterator<Item = Run> {
        let mut entries = self.entries.iter().peekable();
        std::iter::from_fn(move || {
            let first = entries.find(|entry| entry.done)?.offset;
            let mut last = first;
            while let Some(entry) = entries.next_if(|entry| entry.done) {
                last = entry.offset;
            }
            Some(Run { first, last })
        })
    }

    /// What is not done, lowest first: the first and last offset of each run.
    pub(crate) fn open(&self) -> impl Iterator<Item = Run> {
        let mut entries = self.entries.iter().peekable();
        std::iter::from_fn(move || {
            let first = entries.find(|entry| !entry.done)?.offset;
            let mut last = first;
            while let Some(entry) = entries.next_if(|entry| !entry.done) {
                last = entry.offset;
            }
            Some(Run { first, last })
        })
    }

    /// Forgets what is done at the front.
    fn pass(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.done) {
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn before_anything_was_fetched_there_is_no_position() {
        assert_eq!(Tracker::default().position(), None);
    }

    #[test]
    fn what_was_done_before_is_passed() {
        let mut tracker = Tracker::default();
        tracker.fetched(5, true);
        assert_eq!(tracker.position(), Some(6));
        let number = tracker.fetched(9, false);
        tracker.fetched(10, true);
        assert_eq!(tracker.position(), Some(9));
        tracker.finish(number);
        assert_eq!((tracker.position(), tracker.span()), (Some(11), 0));
    }

    proptest! {
        /// Fetches offsets with gaps and finishes them in any order, some twice, some never.
        #[test]
        fn the_position_is_the_lowest_unfinished(
            steps in prop::collection::vec((1..4_i64, any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut tracker = Tracker::default();
            let mut model: BTreeMap<i64, bool> = BTreeMap::new();
            let mut numbers = Vec::new();
            let mut offset = 0;
            for (gap, done, finish) in steps {
                offset += gap;
                numbers.push((tracker.fetched(offset, done), offset));
                model.insert(offset, done);
                let (number, finished) = numbers[finish.index(numbers.len())];
                tracker.finish(number);
                model.insert(finished, true);

                let lowest = model.iter().find(|(_, done)| !**done).map(|(offset, _)| *offset);
                prop_assert_eq!(tracker.position(), Some(lowest.unwrap_or(offset + 1)));
                let above = model.iter().filter(|(offset, done)| **done && lowest.is_some_and(|lowest| **offset > lowest));
                let above: Vec<_> = above.map(|(offset, _)| *offset).collect();
                let runs: Vec<_> = tracker.done().collect();
                let open: Vec<_> = tracker.open().collect();
                let left = model.iter().filter(|(_, done)| !**done).map(|(offset, _)| *offset);
                let shown = |offset: &i64| open.iter().any(|run| (run.first..=run.last).contains(offset));
                prop_assert_eq!(model.keys().copied().filter(shown).collect::<Vec<_>>(), left.collect::<Vec<_>>());
                let noted = |offset: &i64| runs.iter().any(|run| (run.first..=run.last).contains(offset));
                let told: Vec<_> = model.keys().copied().filter(noted).collect();
                prop_assert_eq!(told, above);
            }
        }

        #[test]
        fn when_all_is_done_nothing_is_kept(count in 1..500_u64, seed in any::<u64>()) {
            let mut tracker = Tracker::default();
            let mut numbers: Vec<_> = (0..count).map(|at| tracker.fetched(at as i64 * 3, false)).collect();
            let mut random = seed;
            while !numbers.is_empty() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let place = (random >> 33) as usize % numbers.len();
                tracker.finish(numbers.swap_remove(place));
            }
            prop_assert_eq!((tracker.span(), tracker.position()), (0, Some((count as i64 - 1) * 3 + 1)));
        }
    }
}
