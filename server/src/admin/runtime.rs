//! What tokio says of the main runtime, as far as that is stable.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::runtime::Handle;

/// The `tokio_*` families.
#[derive(Debug)]
pub(crate) struct RuntimeMetrics(Handle);

impl RuntimeMetrics {
    /// Of the runtime that this is called on.
    pub(crate) fn current() -> Self {
        Self(Handle::current())
    }
}

impl Collector for RuntimeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = self.0.metrics();
        for (name, help, value) in [
            ("tokio_workers", "Threads that run tasks", metrics.num_workers()),
            ("tokio_alive_tasks", "Tasks that have not ended", metrics.num_alive_tasks()),
            ("tokio_global_queue_depth", "Tasks that no thread has taken up yet", metrics.global_queue_depth()),
        ] {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let kind = ConstCounter::new(0.0).metric_type();
        let help = "Time in which a thread ran tasks";
        let mut busy = encoder.encode_descriptor("tokio_worker_busy", help, Some(&Unit::Seconds), kind)?;
        for worker in 0..metrics.num_workers() {
            let seconds = ConstCounter::new(metrics.worker_total_busy_duration(worker).as_secs_f64());
            seconds.encode(busy.encode_family(&[("worker", worker)])?)?;
        }
        let help = "How often a thread ran out of tasks and went to sleep";
        let mut parks = encoder.encode_descriptor("tokio_worker_parks", help, None, kind)?;
        for worker in 0..metrics.num_workers() {
            let count = ConstCounter::new(metrics.worker_park_count(worker));
            count.encode(parks.encode_family(&[("worker", worker)])?)?;
        }
        Ok(())
    }
}
