//! What a check found.

use std::collections::BTreeMap;
use std::fmt;

use super::event::Tag;

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What sort of thing.
    pub kind: Kind,
    /// The message, if it is about one.
    pub tag: Option<Tag>,
    /// What happened and when, in words; events are numbered by their place in the journal.
    pub evidence: String,
}

/// What sort of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The broker said that it has the message, and a group never finished it.
    Lost,
    /// A message was received that was never published, or whose publish had certainly failed.
    Unexpected,
    /// Body or key came out other than they went in.
    Altered,
    /// A message was handed out again though it was done, or while it was still out.
    Duplicated,
    /// A message overtook an earlier one of its key.
    Reordered,
    /// A delivery was acked before its handler had come to its end.
    AckedEarly,
    /// A position was committed beyond a delivery that was not settled.
    CommittedBeyond,
}

/// The outcome of a check.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verdict {
    /// Everything that went wrong. Duplicates that the rules allow are not among them.
    pub findings: Vec<Finding>,
    /// Messages whose publish began.
    pub tried: usize,
    /// Messages that the broker said it has.
    pub published: usize,
    /// Deliveries.
    pub delivered: usize,
    /// Deliveries that were one too many, those included that the rules allow.
    pub duplicates: usize,
}

impl Verdict {
    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// How often something went wrong in this way.
    pub fn count(&self, kind: Kind) -> usize {
        self.findings.iter().filter(|finding| finding.kind == kind).count()
    }

    /// Panics with the evidence unless nothing went wrong.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }
}

impl Kind {
    /// The name, for people and for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Unexpected => "unexpected",
            Self::Altered => "altered",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::AckedEarly => "acked early",
            Self::CommittedBeyond => "committed beyond",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.evidence)
    }
}

/// One line with the counts, then the first findings of each kind, one a line.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let Self { findings, published, delivered, duplicates, .. } = self;
        write!(
            f,
            "{published} published, {delivered} delivered, {duplicates} duplicates, {} findings",
            findings.len()
        )?;
        let mut shown = BTreeMap::<_, usize>::new();
        for finding in findings {
            let count = shown.entry(finding.kind).or_default();
            *count += 1;
            if *count <= SHOWN {
                write!(f, "\n{finding}")?;
            }
        }
        for (kind, count) in shown.into_iter().filter(|(_, count)| *count > SHOWN) {
            write!(f, "\n{kind}: {} more", count - SHOWN)?;
        }
        Ok(())
    }
}
