//! What the kernel knows about this process, read when it is scraped.

use std::fmt;
use std::fs;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// The `process_*` families, from `/proc`. A value that cannot be read (another system, a closed `/proc`) is left out.
#[derive(Debug)]
pub(super) struct Process;

/// Ticks a second in `/proc`: `USER_HZ`, which is 100 wherever Linux runs today.
const TICKS: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut show = |name, help, unit, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        if let Some(stat) = Stat::read() {
            show(
                "process_cpu",
                "CPU time, user and system",
                Some(&Unit::Seconds),
                &ConstCounter::new(stat.cpu_seconds),
            )?;
            show("process_threads", "Threads", None, &ConstGauge::new(stat.threads))?;
            if let Some(boot) = boot_time() {
                let start = ConstGauge::new(boot + stat.start_seconds);
                show("process_start_time", "Start of the process since the Unix epoch", Some(&Unit::Seconds), &start)?;
            }
        }
        if let Some(memory) = memory() {
            show("process_resident_memory", "Memory in RAM", Some(&Unit::Bytes), &ConstGauge::new(memory.resident))?;
            show("process_virtual_memory", "Address space", Some(&Unit::Bytes), &ConstGauge::new(memory.virtual_))?;
        }
        if let Some(open) = open_descriptors() {
            show("process_open_fds", "File descriptors in use", None, &ConstGauge::new(open as i64))?;
        }
        if let Some(most) = max_descriptors() {
            show("process_max_fds", "File descriptors that may be in use", None, &ConstGauge::new(most as i64))?;
        }
        Ok(())
    }
}

/// The CPU time that the process has used, in steps of 10 ms; zero where it cannot be read.
pub(crate) fn cpu_time() -> Duration {
    Stat::read().map_or(Duration::ZERO, |stat| Duration::from_secs_f64(stat.cpu_seconds))
}

struct Stat {
    cpu_seconds: f64,
    threads: i64,
    start_seconds: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The second field is the program's name and may itself have spaces and brackets.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (number(14)? + number(15)?) / TICKS,
            threads: fields.get(20 - 3)?.parse().ok()?,
            start_seconds: number(22)? / TICKS,
        })
    }
}

struct Memory {
    resident: i64,
    virtual_: i64,
}

fn memory() -> Option<Memory> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |key| Some(after(&status, key)?.strip_suffix("kB")?.trim().parse::<i64>().ok()? * 1024);
    Some(Memory { resident: bytes("VmRSS:")?, virtual_: bytes("VmSize:")? })
}

fn boot_time() -> Option<f64> {
    after(&fs::read_to_string("/proc/stat").ok()?, "btime ")?.parse().ok()
}

/// How many file descriptors the process has open; `None` where the system does not tell.
pub fn open_descriptors() -> Option<usize> {
    // One of them is the directory that is being listed.
    fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1))
}

/// How many file descriptors the process may have open (`ulimit -n`); `None` where there is no limit, or the system does
/// not tell.
pub fn max_descriptors() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    after(&limits, "Max open files")?.split_ascii_whitespace().next()?.parse().ok()
}

/// The rest of the line that begins with `key`.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{registry, text};

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 7 0 12345 1000000 300 0";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.cpu_seconds, stat.threads, stat.start_seconds), (3.0, 7, 123.45));
        assert!(Stat::parse("42 (a").is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_shows_itself() {
        let text = text(&[registry()]);
        let value = |name: &str| {
            after(&text, &format!("{name} ")).unwrap_or_else(|| panic!("no {name} in\n{text}")).parse::<f64>().unwrap()
        };
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") < value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((now - 3600.0..now + 1.0).contains(&value("process_start_time_seconds")));
    }
}
