//! Where CPU time goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::stacks::{Kind, Profile};
use super::{Refusal, sampler};
use crate::metrics;

/// Samples a second that a recording may ask for. The kernel's own tick, often 250, limits what comes.
pub const HZ: std::ops::RangeInclusive<u32> = 1..=250;

/// A recording that runs. Dropping it stops the profiler and throws away what it saw.
///
/// A sample is the stack of a thread that runs at that moment; a process that sleeps is not sampled. The innermost
/// function of a stack is the one that called what ran: the time of a function that calls nothing is its caller's.
#[derive(Debug)]
pub struct Recording {
    sampler: sampler::Sampler,
    hz: u32,
    began: SystemTime,
    clock: Instant,
    cpu: Duration,
    _only: Only,
}

/// There is one of these in a process.
#[derive(Debug)]
struct Only;

static RUNNING: AtomicBool = AtomicBool::new(false);

const KINDS: [Kind; 2] = [Kind { name: "samples", unit: "count" }, Kind { name: "cpu", unit: "nanoseconds" }];

impl Recording {
    /// Begins to sample, `hz` times for each second of CPU time.
    ///
    /// Fails with [`Refusal::Busy`] while another recording lives, wherever in the process, and with
    /// [`Refusal::Impossible`] where stacks cannot be walked safely: that takes Linux with glibc on x86-64 or aarch64, and
    /// a build with `-C force-frame-pointers=yes`.
    ///
    /// # Panics
    /// When `hz` is not in [`HZ`].
    pub fn start(hz: u32) -> Result<Self, Refusal> {
        assert!(HZ.contains(&hz), "{hz} Hz is not within {HZ:?}");
        possible()?;
        if RUNNING.swap(true, Ordering::AcqRel) {
            return Err(Refusal::Busy);
        }
        let only = Only;
        let sampler = sampler::Sampler::start(hz)?;
        let cpu = metrics::cpu_time();
        Ok(Self { sampler, hz, began: SystemTime::now(), clock: Instant::now(), cpu, _only: only })
    }

    /// Stops, and looks up the names of what was seen. That may take seconds the first time, so it belongs on a thread
    /// that may block.
    ///
    /// What a sample stands for is measured, not assumed: the process' CPU time divided by the samples that came.
    pub fn finish(self) -> Result<Profile, Refusal> {
        let (took, cpu) = (self.clock.elapsed(), metrics::cpu_time().saturating_sub(self.cpu));
        let mut stacks = self.sampler.stop()?;
        let samples: i64 = stacks.iter().map(|stack| stack.values[0]).sum();
        let period = period(self.hz, cpu, samples);
        for stack in &mut stacks {
            stack.values.push(stack.values[0] * period);
        }
        Ok(Profile::new(&KINDS, period, self.began, took, stacks))
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::Release);
    }
}

/// Whether this build can take CPU profiles; the error says what it lacks.
pub fn possible() -> Result<(), Refusal> {
    if !sampler::SUPPORTED {
        return Err(Refusal::Impossible(
            "CPU profiles need Linux with glibc on x86-64 or aarch64: elsewhere stacks cannot be walked safely; \
             use `perf` or the platform's own profiler",
        ));
    }
    if !cfg!(frame_pointers) {
        return Err(Refusal::Impossible(
            "CPU profiles need frame pointers: build with RUSTFLAGS=\"-C force-frame-pointers=yes\", or put \
             `rustflags = [\"-C\", \"force-frame-pointers=yes\"]` under `[build]` in .cargo/config.toml",
        ));
    }
    Ok(())
}

/// Nanoseconds of CPU time that one sample stands for. No timer is faster than it was asked to be, so less than
/// asked for is the coarse clock's error.
fn period(hz: u32, cpu: Duration, samples: i64) -> i64 {
    let asked = 1_000_000_000 / i64::from(hz);
    if samples == 0 { asked } else { (cpu.as_nanos() as i64 / samples).max(asked) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_is_what_came_and_not_what_was_asked_for() {
        let second = Duration::from_secs(1);
        assert_eq!(period(100, second, 100), 10_000_000);
        assert_eq!(period(250, second, 100), 10_000_000, "a kernel with 100 ticks a second");
        assert_eq!(period(100, Duration::from_millis(990), 100), 10_000_000);
        assert_eq!(period(50, Duration::ZERO, 0), 20_000_000);
    }

    #[inline(never)]
    fn burn(until: Instant) -> u64 {
        let mut sum = 0_u64;
        while Instant::now() < until {
            sum = burn_more(std::hint::black_box(sum));
        }
        sum
    }

    #[inline(never)]
    fn burn_more(sum: u64) -> u64 {
        (0..20_000_u64).fold(sum, |sum, n| std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n)))
    }

    /// One test, because there is one profiler.
    #[test]
    fn a_busy_function_is_named_and_a_second_recording_is_refused() {
        if let Err(refusal) = possible() {
            assert_eq!(Recording::start(99).map(drop), Err(refusal));
            return;
        }
        // As long as it takes: on a busy machine CPU time is slow to come.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let recording = Recording::start(200).unwrap();
            assert_eq!(Recording::start(99).map(drop), Err(Refusal::Busy));
            burn(Instant::now() + Duration::from_millis(500));
            let profile = recording.finish().unwrap();
            assert!(profile.period() >= 5_000_000, "{}", profile.period());
            let folded = profile.folded();
            if folded.contains("mainspring_observe::profile::cpu::tests::burn") {
                assert!(!folded.contains("perf_signal_handler"), "the profiler shows itself: {folded}");
                return;
            }
            assert!(Instant::now() < deadline, "never seen; last:\n{folded}");
        }
    }
}
