//! What jemalloc knows of itself, read when it is scraped.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tikv_jemalloc_ctl::{epoch, stats};

/// The `jemalloc_*` families.
#[derive(Debug)]
pub(super) struct Jemalloc;

impl Collector for Jemalloc {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Statistics stand still until they are asked for anew.
        if epoch::advance().is_err() {
            return Ok(());
        }
        for (name, help, bytes) in [
            ("jemalloc_allocated", "Memory that the program holds", stats::allocated::read()),
            ("jemalloc_active", "Memory in pages that hold something", stats::active::read()),
            ("jemalloc_resident", "Memory in RAM for the allocator, its own included", stats::resident::read()),
            ("jemalloc_mapped", "Memory that the allocator has mapped", stats::mapped::read()),
        ] {
            if let Ok(bytes) = bytes {
                let gauge = ConstGauge::new(bytes as f64);
                gauge.encode(encoder.encode_descriptor(name, help, Some(&Unit::Bytes), gauge.metric_type())?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::{registry, text};

    #[test]
    fn the_allocator_shows_what_is_held() {
        let held = || {
            let text = text(&[registry()]);
            let line = text.lines().find_map(|line| line.strip_prefix("jemalloc_allocated_bytes ")).unwrap().to_owned();
            line.parse::<f64>().unwrap()
        };
        let before = held();
        let hoard = vec![1_u8; 64 * 1024 * 1024];
        assert!(held() > before + 32.0 * 1024.0 * 1024.0);
        drop(hoard);
    }
}
