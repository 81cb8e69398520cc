//! The one place that knows the crate `pprof`, and where it works.
//!
//! Only its sampling is used. Its own encoders would bring a second protobuf library, and its names for addresses
//! are those of the instruction after each call.

#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod here {
    use std::fmt;

    use pprof::{ProfilerGuard, ProfilerGuardBuilder};

    use crate::profile::Refusal;
    use crate::profile::stacks::Stack;

    pub(in crate::profile) const SUPPORTED: bool = true;

    /// A timer that interrupts whoever runs, and what it saw.
    pub(in crate::profile) struct Sampler(ProfilerGuard<'static>);

    impl Sampler {
        pub(in crate::profile) fn start(hz: u32) -> Result<Self, Refusal> {
            let guard = ProfilerGuardBuilder::default().frequency(hz as i32).build();
            guard.map(Self).map_err(|error| match error {
                pprof::Error::Running => Refusal::Busy,
                error => Refusal::Failed(format!(
                    "the profiler does not start: {error}; it needs a temporary directory that can be written to"
                )),
            })
        }

        /// Ends the sampling; each stack has the number of its samples as its value.
        pub(in crate::profile) fn stop(self) -> Result<Vec<Stack>, Refusal> {
            let report = self.0.report().build_unresolved();
            drop(self.0);
            let report = report.map_err(|error| Refusal::Failed(format!("no samples can be read: {error}")))?;
            let stacks = report.data.into_iter().map(|(sample, count)| {
                let name = &sample.thread_name[..sample.thread_name_length];
                Stack {
                    thread: Some(String::from_utf8_lossy(name).into_owned()),
                    addresses: sample.frames.iter().map(|frame| frame.ip).collect(),
                    values: vec![count as i64],
                }
            });
            Ok(stacks.collect())
        }
    }

    impl fmt::Debug for Sampler {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Sampler").finish_non_exhaustive()
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod here {
    use crate::profile::Refusal;
    use crate::profile::stacks::Stack;

    pub(in crate::profile) const SUPPORTED: bool = false;

    /// Cannot be made here.
    #[derive(Debug)]
    pub(in crate::profile) enum Sampler {}

    impl Sampler {
        pub(in crate::profile) fn start(_: u32) -> Result<Self, Refusal> {
            Err(Refusal::Impossible("CPU profiles are not supported on this platform"))
        }

        pub(in crate::profile) fn stop(self) -> Result<Vec<Stack>, Refusal> {
            match self {}
        }
    }
}

pub(super) use here::{SUPPORTED, Sampler};
