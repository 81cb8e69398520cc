//! What the control group of this process may use, and has used: a container's limits, read when they are scraped.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// The `cgroup_*` families, of version 2 or 1. What cannot be read, or has no limit, is left out.
#[derive(Debug)]
pub(super) struct Cgroup;

/// What was read.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    periods: Option<u64>,
    throttled_periods: Option<u64>,
    throttled_seconds: Option<f64>,
    cores: Option<f64>,
    memory: Option<u64>,
    memory_limit: Option<u64>,
}

impl Collector for Cgroup {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage =
            Usage::read(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
        let mut show = |name, help, unit, metric: Option<&dyn EncodeMetric>| match metric {
            Some(metric) => metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?),
            None => Ok(()),
        };
        let count = |value: Option<u64>| value.map(ConstCounter::new);
        let size = |value: Option<u64>| value.map(|value| ConstGauge::new(value as f64));
        macro_rules! show {
            ($name:literal, $help:literal, $unit:expr, $metric:expr) => {
                show($name, $help, $unit, $metric.as_ref().map(|metric| metric as &dyn EncodeMetric))?
            };
        }
        show!("cgroup_cpu_periods", "Periods in which the group wanted to run", None, count(usage.periods));
        show!(
            "cgroup_cpu_throttled_periods",
            "Periods in which the group was held up at its CPU limit",
            None,
            count(usage.throttled_periods)
        );
        show!(
            "cgroup_cpu_throttled",
            "Time for which the group was held up at its CPU limit",
            Some(&Unit::Seconds),
            usage.throttled_seconds.map(ConstCounter::new)
        );
        show!("cgroup_cpu_limit_cores", "Cores that the group may use", None, usage.cores.map(ConstGauge::new));
        show!("cgroup_memory_usage", "Memory of the group, caches included", Some(&Unit::Bytes), size(usage.memory));
        show!("cgroup_memory_limit", "Memory that the group may use", Some(&Unit::Bytes), size(usage.memory_limit));
        Ok(())
    }
}

impl Usage {
    /// Reads below `root`, where cgroups are mounted. `own` is `/proc/self/cgroup`.
    fn read(root: &Path, own: &str) -> Self {
        if root.join("cgroup.controllers").exists() { Self::version_2(root, own) } else { Self::version_1(root, own) }
    }

    fn version_2(root: &Path, own: &str) -> Self {
        let group = Group::find(root, own, "");
        let stat = |key| group.value_of("cpu.stat", key);
        let max = group.text("cpu.max");
        let cores = max.as_deref().and_then(|max| {
            let (quota, period) = max.trim().split_once(' ')?;
            Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
        });
        Self {
            periods: stat("nr_periods"),
            throttled_periods: stat("nr_throttled"),
            throttled_seconds: stat("throttled_usec").map(|micros| micros as f64 / 1e6),
            cores,
            memory: group.number("memory.current"),
            // "max" is no number, and so no limit.
            memory_limit: group.number("memory.max"),
        }
    }

    fn version_1(root: &Path, own: &str) -> Self {
        let (cpu, memory) = (Group::find(root, own, "cpu"), Group::find(root, own, "memory"));
        let quota = cpu.text("cpu.cfs_quota_us").and_then(|quota| quota.trim().parse::<f64>().ok());
        let period = cpu.number("cpu.cfs_period_us");
        let cores = quota.zip(period).map(|(quota, period)| quota / period as f64).filter(|cores| *cores > 0.0);
        Self {
            periods: cpu.value_of("cpu.stat", "nr_periods"),
            throttled_periods: cpu.value_of("cpu.stat", "nr_throttled"),
            throttled_seconds: cpu.value_of("cpu.stat", "throttled_time").map(|nanos| nanos as f64 / 1e9),
            cores,
            memory: memory.number("memory.usage_in_bytes"),
            // No limit is written as a number that no machine has.
            memory_limit: memory.number("memory.limit_in_bytes").filter(|limit| *limit < 1 << 60),
        }
    }
}

/// The folder of a group.
struct Group(PathBuf);

impl Group {
    /// The folder for `controller`; "" is that of version 2. Inside a container the group is often mounted as the root
    /// itself, whatever it is called outside.
    fn find(root: &Path, own: &str, controller: &str) -> Self {
        let mount = root.join(controller);
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let path = parts.next()?;
            controllers.split(',').any(|known| known == controller).then_some(path)
        });
        let named = mount.join(path.unwrap_or("/").trim_start_matches('/'));
        Self(if named.is_dir() { named } else { mount })
    }

    fn text(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.0.join(file)).ok()
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    fn value_of(&self, file: &str, key: &str) -> Option<u64> {
        let text = self.text(file)?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
    }

    const EXPECTED: Usage = Usage {
        periods: Some(100),
        throttled_periods: Some(7),
        throttled_seconds: Some(1.5),
        cores: Some(0.5),
        memory: Some(4096),
        memory_limit: Some(8192),
    };

    #[test]
    fn version_2_is_read_from_the_groups_own_folder_or_from_the_mount() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("cgroup.controllers", "cpu memory\n")]);
        for (folder, own) in [("", "0::/outside/name\n"), ("pod/a", "0::/pod/a\n")] {
            write(
                &root.path().join(folder),
                &[
                    ("cpu.stat", "usage_usec 1\nnr_periods 100\nnr_throttled 7\nthrottled_usec 1500000\n"),
                    ("cpu.max", "50000 100000\n"),
                    ("memory.current", "4096\n"),
                    ("memory.max", "8192\n"),
                ],
            );
            assert_eq!(Usage::read(root.path(), own), EXPECTED);
        }
        write(root.path(), &[("cpu.max", "max 100000\n"), ("memory.max", "max\n")]);
        assert_eq!(Usage::read(root.path(), "0::/\n"), Usage { cores: None, memory_limit: None, ..EXPECTED });
    }

    #[test]
    fn version_1_is_read_by_controller() {
        let root = tempfile::tempdir().unwrap();
        let own = "4:memory:/pod\n1:cpu,cpuacct:/pod\n0::/\n";
        write(
            root.path(),
            &[
                ("cpu/pod/cpu.stat", "nr_periods 100\nnr_throttled 7\nthrottled_time 1500000000\n"),
                ("cpu/pod/cpu.cfs_quota_us", "50000\n"),
                ("cpu/pod/cpu.cfs_period_us", "100000\n"),
                ("memory/pod/memory.usage_in_bytes", "4096\n"),
                ("memory/pod/memory.limit_in_bytes", "8192\n"),
            ],
        );
        assert_eq!(Usage::read(root.path(), own), EXPECTED);
        write(
            root.path(),
            &[("cpu/pod/cpu.cfs_quota_us", "-1\n"), ("memory/pod/memory.limit_in_bytes", "9223372036854771712\n")],
        );
        assert_eq!(Usage::read(root.path(), own), Usage { cores: None, memory_limit: None, ..EXPECTED });
        assert_eq!(Usage::read(Path::new("/nowhere"), own), Usage::default());
    }
}
