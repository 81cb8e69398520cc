//! Who holds the memory: what jemalloc has sampled, if the process allocates with it.
//!
//! With the feature `jemalloc` it does. Samples are taken once [`activate`] was called, one for about 512 KiB that are
//! allocated, so a profile shows what was allocated since then and is still held.

use super::{Profile, Refusal};

/// Begins to sample allocations. Later calls do nothing.
///
/// Fails with [`Refusal::Impossible`] without the feature `jemalloc`, and when jemalloc was built or started without
/// `prof:true`.
pub fn activate() -> Result<(), Refusal> {
    here::activate()
}

/// What is held now and was allocated since [`activate`].
///
/// It is written to the temporary directory on the way, and names are looked up: call it where blocking is fine.
pub fn snapshot() -> Result<Profile, Refusal> {
    here::snapshot()
}

/// What `later` holds more than `earlier`, stack by stack; negative where it holds less.
pub fn delta(earlier: &Profile, mut later: Profile) -> Profile {
    later.took = later.began.duration_since(earlier.began).unwrap_or_default();
    later.began = earlier.began;
    for stack in &earlier.stacks {
        let values: Vec<i64> = stack.values.iter().map(|value| -value).collect();
        match later.stacks.iter_mut().find(|held| held.addresses == stack.addresses) {
            Some(held) => held.values.iter_mut().zip(values).for_each(|(value, less)| *value += less),
            None => later.stacks.push(super::stacks::Stack { values, ..stack.clone() }),
        }
    }
    later.stacks.retain(|stack| stack.values.iter().any(|value| *value != 0));
    for (address, frames) in &earlier.symbols {
        later.symbols.entry(*address).or_insert_with(|| frames.clone());
    }
    later
}

#[cfg(feature = "jemalloc")]
mod here {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, SystemTime};

    use jemalloc_pprof::PROF_CTL;

    use crate::profile::stacks::{Kind, Stack};
    use crate::profile::{Profile, Refusal};

    const KINDS: [Kind; 1] = [Kind { name: "inuse_space", unit: "bytes" }];

    const NOT_PREPARED: Refusal = Refusal::Impossible(
        "heap profiles need jemalloc prepared for them: build with \
         JEMALLOC_SYS_WITH_MALLOC_CONF=\"prof:true,prof_active:false,lg_prof_sample:19\" (an `[env]` line in \
         .cargo/config.toml), or start the process with _RJEM_MALLOC_CONF of the same value",
    );

    #[global_allocator]
    static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

    /// One dump at a time: jemalloc writes to a file that it is told.
    static DUMPING: Mutex<()> = Mutex::new(());
    static ACTIVE: AtomicBool = AtomicBool::new(false);

    pub(super) fn activate() -> Result<(), Refusal> {
        if ACTIVE.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = DUMPING.lock().unwrap_or_else(PoisonError::into_inner);
        let control = PROF_CTL.as_ref().ok_or(NOT_PREPARED)?;
        let mut control = control.try_lock().map_err(|_| Refusal::Busy)?;
        control.activate().map_err(|error| Refusal::Failed(format!("jemalloc does not begin to sample: {error}")))?;
        ACTIVE.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn snapshot() -> Result<Profile, Refusal> {
        let control = PROF_CTL.as_ref().ok_or(NOT_PREPARED)?;
        let _one = DUMPING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut control = control.try_lock().map_err(|_| Refusal::Busy)?;
        let dumped = control.dump_profile();
        let period = 1_i64 << control.lg_sample().min(62);
        drop(control);
        let dumped = dumped.map_err(|error| {
            Refusal::Failed(format!(
                "jemalloc's profile cannot be read: {error:#}; it needs a temporary directory that can be written to"
            ))
        })?;
        let stacks = dumped.iter().map(|(stack, _)| Stack {
            thread: None,
            addresses: stack.addrs.clone(),
            values: vec![stack.weight as i64],
        });
        Ok(Profile::new(&KINDS, period, SystemTime::now(), Duration::ZERO, stacks.collect()))
    }
}

#[cfg(not(feature = "jemalloc"))]
mod here {
    use crate::profile::{Profile, Refusal};

    const WITHOUT: Refusal = Refusal::Impossible(
        "heap profiles need jemalloc: build with the feature `jemalloc` of mainspring (`--features jemalloc`)",
    );

    pub(super) fn activate() -> Result<(), Refusal> {
        Err(WITHOUT)
    }

    pub(super) fn snapshot() -> Result<Profile, Refusal> {
        Err(WITHOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stacks::tests::example;
    use super::*;

    #[test]
    fn a_delta_shows_what_came_and_what_went() {
        let earlier = example();
        let mut later = example();
        later.stacks[0].values = vec![5, 50];
        later.stacks.remove(2);
        let delta = delta(&earlier, later);
        assert_eq!(delta.stacks.iter().map(|stack| stack.values.clone()).collect::<Vec<_>>(), [[2, 20], [-1, -10]]);
        assert_eq!(delta.total(), 10);
        assert_eq!(delta.folded(), "main;main;work<&'a>;inlined 20\n");
    }

    #[test]
    #[cfg(not(feature = "jemalloc"))]
    fn without_jemalloc_the_feature_is_named() {
        assert!(activate().unwrap_err().to_string().contains("--features jemalloc"));
    }

    #[test]
    #[cfg(feature = "jemalloc")]
    fn what_is_held_is_named() {
        #[inline(never)]
        fn hoard() -> Vec<Vec<u8>> {
            (0..64).map(|_| vec![1; 1024 * 1024]).collect()
        }
        activate().unwrap();
        let before = snapshot().unwrap();
        let held = hoard();
        let profile = delta(&before, snapshot().unwrap());
        assert!(profile.folded().contains("heap::tests::what_is_held_is_named::hoard"), "{}", profile.folded());
        assert!(profile.total() > 32 * 1024 * 1024, "{}", profile.total());
        drop(held);
    }
}
