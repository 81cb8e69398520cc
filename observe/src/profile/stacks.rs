//! What a profile is made of.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use super::symbol::{Frame, symbolize};

/// Stacks with the values that were measured under them.
#[derive(Clone, Debug)]
pub struct Profile {
    pub(super) kinds: &'static [Kind],
    /// What one sample stands for, in the unit of the last kind.
    pub(super) period: i64,
    pub(super) began: SystemTime,
    pub(super) took: Duration,
    pub(super) stacks: Vec<Stack>,
    pub(super) symbols: HashMap<usize, Vec<Frame>>,
}

/// A kind of value, and its unit. The last kind of a profile is the one that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
}

/// One stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stack {
    pub(super) thread: Option<String>,
    /// The innermost function first.
    pub(super) addresses: Vec<usize>,
    /// One for each kind.
    pub(super) values: Vec<i64>,
}

impl Profile {
    pub(super) fn new(
        kinds: &'static [Kind],
        period: i64,
        began: SystemTime,
        took: Duration,
        stacks: Vec<Stack>,
    ) -> Self {
        let symbols = symbolize(stacks.iter().flat_map(|stack| stack.addresses.iter().copied()));
        Self { kinds, period, began, took, stacks, symbols }
    }

    /// The sum of the values that are shown: nanoseconds of CPU time, or bytes.
    pub fn total(&self) -> i64 {
        self.stacks.iter().map(Stack::shown).sum()
    }

    /// What one sample stands for, in the unit of [`total`](Self::total).
    pub fn period(&self) -> i64 {
        self.period
    }

    /// The profile as text, one stack a line, the outermost function first: `main;serve;parse 12`. What many tools call
    /// folded or collapsed. Values are those of [`total`](Self::total); what shrank between two heap profiles is left
    /// out.
    pub fn folded(&self) -> String {
        let mut lines: BTreeMap<String, i64> = BTreeMap::new();
        for stack in self.stacks.iter().filter(|stack| stack.shown() > 0) {
            *lines.entry(self.names(stack).join(";")).or_default() += stack.shown();
        }
        lines.iter().map(|(names, value)| format!("{names} {value}\n")).collect()
    }

    /// The names of a stack, the thread and then the outermost function first. A semicolon in a name would end it.
    pub(super) fn names(&self, stack: &Stack) -> Vec<String> {
        let functions = stack.addresses.iter().rev().flat_map(|address| {
            let frames = self.symbols.get(address).map_or(&[][..], Vec::as_slice);
            let names: Vec<_> = match frames {
                [] => vec![format!("{address:#x}")],
                frames => frames.iter().rev().map(|frame| frame.name.clone()).collect(),
            };
            names
        });
        stack.thread.iter().cloned().chain(functions).map(|name| name.replace([';', '\n'], ",")).collect()
    }

    pub(super) fn shown_kind(&self) -> Kind {
        self.kinds[self.kinds.len() - 1]
    }
}

impl Stack {
    pub(super) fn shown(&self) -> i64 {
        self.values.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::profile) const KINDS: [Kind; 2] =
        [Kind { name: "samples", unit: "count" }, Kind { name: "cpu", unit: "nanoseconds" }];

    /// `main` calls `work`, into which `inlined` was inlined; once from another thread, once from an unknown place.
    pub(in crate::profile) fn example() -> Profile {
        let frame = |name: &str, line| Frame { name: name.to_owned(), file: "src/main.rs".to_owned(), line };
        let stack = |thread: Option<&str>, addresses: &[usize], count: i64| Stack {
            thread: thread.map(str::to_owned),
            addresses: addresses.to_vec(),
            values: vec![count, count * 10],
        };
        Profile {
            kinds: &KINDS,
            period: 10,
            began: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            took: Duration::from_secs(2),
            stacks: vec![
                stack(Some("main"), &[0x20, 0x10], 3),
                stack(Some("odd;name"), &[0x10], 1),
                stack(None, &[0x30], 1),
            ],
            symbols: HashMap::from([
                (0x10, vec![frame("main", 1)]),
                (0x20, vec![frame("inlined", 20), frame("work<&'a>", 7)]),
                (0x30, vec![]),
            ]),
        }
    }

    #[test]
    fn folded_stacks_begin_at_the_thread_and_end_at_the_innermost_function() {
        assert_eq!(example().folded(), "0x30 10\nmain;main;work<&'a>;inlined 30\nodd,name;main 10\n");
        assert_eq!(example().total(), 50);
    }
}
