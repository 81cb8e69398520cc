//! One case of the suite.

use std::fmt;
use std::time::Duration;

use mainspring_daemon::{BoxFuture, Chain};
use mainspring_pubsub::Error;

use super::backend::Need;
use super::cases::ALL;
use super::stage::Stage;

/// A case: what a driver must do, by name.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// The name, in lower case with `_`.
    pub name: &'static str,
    /// What must hold, in one sentence.
    pub about: &'static str,
    /// What it needs of a broker.
    pub needs: &'static [Need],
    /// How often the backend's patience it may take as a whole.
    pub(super) patience: u32,
    pub(super) run: fn(Stage) -> BoxFuture<Result<(), Fault>>,
}

/// Why a case failed, for people.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

/// All cases, in the order in which they are run.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    ALL.iter().flat_map(|group| group.iter())
}

/// The case of this name.
pub fn find(name: &str) -> Option<&'static Case> {
    cases().find(|case| case.name == name)
}

/// The names of all cases.
pub fn names() -> impl Iterator<Item = &'static str> {
    cases().map(|case| case.name)
}

impl Case {
    pub(super) fn deadline(&self, patience: Duration) -> Duration {
        patience.saturating_mul(self.patience)
    }
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self(Chain(&error).to_string())
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A table of cases: `name(needs…) * patience: "about"`. The name is that of the function.
macro_rules! table {
    ($($(#[$meta:meta])* $name:ident [$($need:ident)*] $patience:literal $about:literal;)*) => {
        pub(in crate::conformance) const CASES: &[$crate::conformance::case::Case] = &[$(
            $crate::conformance::case::Case {
                name: stringify!($name),
                about: $about,
                needs: &[$($crate::conformance::backend::Need::$need),*],
                patience: $patience,
                run: |stage| Box::pin($name(stage)),
            }
        ),*];
    };
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::conformance::case::Fault::new(format!($($why)+)));
        }
    };
}

pub(super) use {ensure, table};
