//! Names that tell the members of a group apart, and stay the same when a member is started again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The names that are in use in this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeSet<String>>>);

/// A name that nobody else in this process has, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    names: Names,
    name: String,
    number: u32,
}

impl Names {
    /// `prefix` and the lowest number that is free: a process that opens the same things in the same order gets the
    /// same names each time it is started.
    pub(crate) fn claim(&self, prefix: &str) -> Claim {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut number = 0_u32;
        let name = loop {
            let name = format!("{prefix}.{number}");
            if names.insert(name.clone()) {
                break name;
            }
            number += 1;
        };
        Claim { names: self.clone(), name, number }
    }
}

impl Claim {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from others of its prefix.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.names.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// What this host is called; `None` where it does not say.
pub(crate) fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok())?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_out_once_and_again_when_they_are_free() {
        let names = Names::default();
        let (first, second) = (names.claim("a"), names.claim("a"));
        assert_eq!((first.name(), second.name(), names.claim("b").name()), ("a.0", "a.1", "b.0"));
        drop(first);
        assert_eq!(names.claim("a").name(), "a.0");
    }
}
