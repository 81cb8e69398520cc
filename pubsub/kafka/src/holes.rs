//! What is done above the committed position, as text for the commit's metadata.
//!
//! `ms1;<position>;<runs>`: for each run of done offsets how far it is from the end of the last one (or from the
//! position), and how long it is. Numbers are in base 32, lowest digits first, one character each; characters of the
//! upper half of the alphabet say that more digits follow. The position is repeated so that text which a tool has
//! carried over to another position is not believed.

use std::collections::VecDeque;

/// What a broker accepts by default.
pub(crate) const MAX_BYTES: usize = 4096;

const VERSION: &str = "ms1";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Done offsets, from the first to the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// Runs that an earlier owner of the partition noted, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted(VecDeque<Run>);

/// Notes `runs`, which are above `position`, lowest first, and do not overlap. What does not fit is left out, so that
/// those messages are handled again; no offset is ever noted that is in no run. Empty when there is nothing to note.
pub(crate) fn encode(position: i64, runs: impl Iterator<Item = Run>) -> String {
    let mut text = format!("{VERSION};{position};");
    let (bare, mut end) = (text.len(), position);
    let mut runs = runs.peekable();
    while let Some(mut run) = runs.next() {
        while let Some(touching) = runs.next_if(|next| next.first == run.last + 1) {
            run.last = touching.last;
        }
        let whole = text.len();
        push(&mut text, run.first.abs_diff(end));
        push(&mut text, run.last.abs_diff(run.first));
        if text.len() > MAX_BYTES {
            text.truncate(whole);
            break;
        }
        end = run.last;
    }
    if text.len() == bare { String::new() } else { text }
}

impl Noted {
    /// Reads what was noted for `position`. Anything else, by whomever, is nothing.
    pub(crate) fn decode(position: i64, text: &str) -> Self {
        Self::try_decode(position, text).unwrap_or_default()
    }

    fn try_decode(position: i64, text: &str) -> Option<Self> {
        let (noted_for, mut rest) = text.strip_prefix(VERSION)?.strip_prefix(';')?.split_once(';')?;
        if noted_for.parse() != Ok(position) || text.len() > MAX_BYTES {
            return None;
        }
        let (mut runs, mut end) = (VecDeque::new(), position);
        while !rest.is_empty() {
            let gap;
            let length;
            (gap, rest) = pull(rest)?;
            (length, rest) = pull(rest)?;
            let first = end.checked_add(gap)?;
            // The position itself is never done, and runs do not touch their predecessor's last offset.
            if gap == 0 {
                return None;
            }
            end = first.checked_add(length)?;
            runs.push_back(Run { first, last: end });
        }
        Some(Self(runs))
    }

    /// Whether `offset` is done. Offsets are asked for in rising order: what is below is forgotten.
    pub(crate) fn take(&mut self, offset: i64) -> bool {
        while self.0.front().is_some_and(|run| run.last < offset) {
            self.0.pop_front();
        }
        self.0.front().is_some_and(|run| run.first <= offset)
    }

    /// The runs from `offset` on.
    pub(crate) fn from(&self, offset: i64) -> impl Iterator<Item = Run> {
        let ahead = self.0.iter().filter(move |run| run.last >= offset);
        ahead.map(move |run| Run { first: run.first.max(offset), last: run.last })
    }
}

fn push(text: &mut String, mut number: u64) {
    loop {
        let digit = (number % 32) as usize;
        number /= 32;
        let more = if number > 0 { 32 } else { 0 };
        text.push(char::from(ALPHABET[digit + more]));
        if number == 0 {
            return;
        }
    }
}

fn pull(text: &str) -> Option<(i64, &str)> {
    let (mut number, mut shift) = (0_i64, 0);
    for (at, byte) in text.bytes().enumerate() {
        let digit = i64::try_from(ALPHABET.iter().position(|known| *known == byte)?).ok()?;
        if shift > 55 {
            return None;
        }
        number |= (digit % 32) << shift;
        shift += 5;
        if digit < 32 {
            return Some((number, &text[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs from pairs of gap and length.
    fn runs(position: i64, pairs: &[(i64, i64)]) -> Vec<Run> {
        let mut end = position;
        let next = |(gap, length): &(i64, i64)| {
            let first = end + gap;
            end = first + length;
            Run { first, last: end }
        };
        pairs.iter().map(next).collect()
    }

    fn decoded(position: i64, text: &str) -> Vec<Run> {
        Noted::decode(position, text).0.into()
    }

    proptest! {
        #[test]
        fn what_fits_comes_back(position in 0..i64::MAX / 2, pairs in prop::collection::vec((2..5000_i64, 0..5000_i64), 0..100)) {
            let runs = runs(position, &pairs);
            let text = encode(position, runs.iter().copied());
            prop_assert_eq!(decoded(position, &text), runs);
        }

        #[test]
        fn what_does_not_fit_is_left_out(pairs in prop::collection::vec((2..1_000_000_i64, 0..1_000_000_i64), 0..3000)) {
            let runs = runs(7, &pairs);
            let text = encode(7, runs.iter().copied());
            prop_assert!(text.len() <= MAX_BYTES);
            let decoded = decoded(7, &text);
            prop_assert_eq!(&decoded[..], &runs[..decoded.len()]);
            prop_assert!(decoded.len() == runs.len() || text.len() > MAX_BYTES - 10);
        }

        #[test]
        fn the_writing_of_others_is_nothing_or_sound(text in ".{0,80}", tail in "ms1;7;[A-Za-z0-9_-]{0,40}") {
            prop_assert!(decoded(7, &text).is_empty() || text.starts_with("ms1;7;"));
            let mut end = 7;
            for run in decoded(7, &tail) {
                prop_assert!(end < run.first && run.first <= run.last);
                end = run.last;
            }
        }
    }

    #[test]
    fn runs_that_touch_are_one() {
        let text = encode(0, [Run { first: 1, last: 4 }, Run { first: 5, last: 9 }].into_iter());
        assert_eq!(decoded(0, &text), [Run { first: 1, last: 9 }]);
    }

    #[test]
    fn text_for_another_position_is_not_believed() {
        let text = encode(100, [Run { first: 101, last: 105 }].into_iter());
        assert_eq!(decoded(100, &text).len(), 1);
        assert!(decoded(101, &text).is_empty());
    }

    #[test]
    fn runs_are_forgotten_as_they_are_passed() {
        let mut noted = Noted([Run { first: 3, last: 4 }, Run { first: 8, last: 8 }].into());
        let done: Vec<_> = (1..10).filter(|offset| noted.take(*offset)).collect();
        assert_eq!(done, [3, 4, 8]);
        assert_eq!(noted, Noted::default());
    }
}
