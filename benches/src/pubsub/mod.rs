//! What messages cost: the kit beside channels, beside Kafka's own client, and with layers around the handler.
//!
//! | file | compares |
//! |---|---|
//! | `memory.rs` | publish → handle → ack in one process: channels, the memory broker |
//! | `keys.rs` | slow handlers and many keys: one at a time, in lanes |
//! | `produce.rs` | produce, and over capacity: Kafka's own client, the kit |
//! | `consume.rs` | consume at least once: Kafka's own client, the kit |
//! | `exactly_once.rs` | consume and produce, at least once and exactly once |
//! | `stopping.rs` | what a stop with thousands in flight loses and doubles |
//! | `stalled.rs` | the memory of a consumer whose handlers stand still |

#[cfg(feature = "kafka")]
mod consume;
#[cfg(feature = "kafka")]
mod exactly_once;
#[cfg(feature = "kafka")]
mod kafka;
mod keys;
mod memory;
#[cfg(feature = "kafka")]
mod produce;
#[cfg(feature = "kafka")]
mod stalled;
#[cfg(feature = "kafka")]
mod stopping;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainspring_daemon::{Context, Trigger};
use mainspring_pubsub::{Bytes, Failure, Router, Subscriber};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::rounds::{Row, Sample};
#[cfg(feature = "kafka")]
pub use kafka::Kafka;
#[cfg(feature = "kafka")]
pub use stalled::held;

/// What a run of these benches gave, by comparison.
pub type Rows = Vec<(&'static str, Vec<Row>)>;

/// The comparisons that need no broker.
///
/// # Errors
/// When an arm fails.
pub fn in_process(rounds: usize) -> io::Result<Rows> {
    let mut rows = memory::run(rounds)?;
    rows.push(("B7 in memory", keys::in_memory(rounds)?));
    Ok(rows)
}

/// The comparisons on a real Kafka.
///
/// # Errors
/// When an arm fails.
#[cfg(feature = "kafka")]
pub fn on_kafka(kafka: &Kafka, names: &[&str], rounds: usize) -> io::Result<Rows> {
    let mut rows = Rows::new();
    for name in names {
        match *name {
            "B4" => rows.extend(produce::run(kafka, rounds)?),
            "B5" => rows.push(("B5", produce::over_capacity(kafka, rounds)?)),
            "B6" => rows.push(("B6", consume::run(kafka, rounds)?)),
            "B7" => rows.push(("B7 on Kafka", keys::on_kafka(kafka, rounds)?)),
            "B11" => rows.push(("B11", stopping::run(kafka, rounds)?)),
            "B13" => rows.push(("B13", stalled::run(kafka, rounds)?)),
            "exactly-once" => rows.push(("exactly once", exactly_once::run(kafka, rounds)?)),
            other => return Err(io::Error::other(format!("there is no comparison `{other}`"))),
        }
    }
    Ok(rows)
}

/// Counts what has been handled, and wakes who waits for all of it.
#[derive(Clone, Default)]
struct Handled(Arc<(AtomicUsize, Notify)>);

impl Handled {
    fn one(&self, of: usize) {
        if self.0.0.fetch_add(1, Ordering::Relaxed) + 1 == of {
            self.0.1.notify_one();
        }
    }

    fn count(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }

    async fn all(&self) {
        self.0.1.notified().await;
    }

    /// A handler that only counts, up to `of`.
    fn handler(&self, of: usize) -> impl Fn(Bytes) -> std::future::Ready<Result<(), Failure>> + Clone + Send + 'static {
        let handled = self.clone();
        move |_body| {
            handled.one(of);
            std::future::ready(Ok(()))
        }
    }
}

/// A router that runs until it is stopped.
struct Running {
    tasks: JoinSet<Result<(), mainspring_pubsub::Error>>,
    trigger: Trigger,
}

impl Running {
    fn start(from: Subscriber, router: impl FnOnce(Subscriber) -> Router) -> Self {
        let (trigger, cx) = Context::test("bench");
        let mut tasks = JoinSet::new();
        tasks.spawn(router(from).run(cx));
        Self { tasks, trigger }
    }

    async fn stop(mut self) -> io::Result<()> {
        self.trigger.request(Instant::now() + Duration::from_secs(30));
        self.trigger.requests_finished();
        match self.tasks.join_next().await {
            Some(Ok(ended)) => ended.map_err(io::Error::other),
            Some(Err(error)) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// Runs `work`, which answers how many messages it saw to, on a runtime with `threads` workers; 0 is this thread alone.
fn sample(threads: usize, work: impl Future<Output = io::Result<usize>>) -> io::Result<Sample> {
    let mut builder = match threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    // It outlives the measurement: the time of threads that have ended is not counted any more.
    let runtime = builder.worker_threads(threads.max(1)).enable_all().build()?;
    Sample::of(|| runtime.block_on(work))
}
