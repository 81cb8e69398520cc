//! B13: what a consumer holds while its handlers stand still and the broker has far more for it.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use mainspring_config::ByteSize;
use mainspring_pubsub::{Bytes, Failure, Message, Router};
use rdkafka::consumer::{Consumer, StreamConsumer};

use super::Running;
use super::kafka::{Kafka, WINDOW, publish_all};
use crate::machine;
use crate::rounds::{Comparison, Row, Sample};

/// Messages of 1 KiB that wait.
const BACKLOG: usize = 1_000_000;
const BYTES: usize = 1024;
/// What the kit's router may hold.
const HELD: ByteSize = ByteSize::mib(16);
/// By then a client has fetched what it is going to.
const FETCHING: Duration = Duration::from_secs(6);

pub(super) fn run(kafka: &Kafka, rounds: usize) -> io::Result<Vec<Row>> {
    let topic = kafka.topic(4)?;
    let publisher = kafka.publisher(&topic, WINDOW)?;
    kafka.block_on(publish_all(&publisher, BACKLOG, incompressible))?;
    let arm = |name: &'static str| {
        let topic = topic.clone();
        move || {
            let mut sample = Sample::of(|| Ok(0))?;
            sample.note = in_a_process(name, &topic)?;
            Ok(sample)
        }
    };
    Comparison::new("B13: memory with a stalled handler that may hold 16 MiB, 1 000 000 messages of 1 KiB behind it")
        .arm("StreamConsumer", arm("raw"))
        .arm("kit", arm("kit"))
        .run(rounds.min(2))
}

/// Consumes in this process, lets its handlers stand still, and says how much memory that took: what `run` starts
/// another process for.
///
/// # Errors
/// When the broker cannot be reached.
pub fn held(arm: &str, topic: &str) -> io::Result<()> {
    let kafka = Kafka::find()?;
    let before = machine::resident("self")?;
    let group = super::kafka::unique("group");
    match arm {
        "raw" => {
            let consumer: StreamConsumer = kafka.consumer_of(&group)?;
            consumer.subscribe(&[topic]).map_err(io::Error::other)?;
            kafka.block_on(async {
                let first = consumer.recv().await.map_err(io::Error::other)?;
                std::hint::black_box(&first);
                tokio::time::sleep(FETCHING).await;
                report(before)
            })
        }
        _ => {
            let from = kafka.subscriber(topic, &group)?;
            kafka.block_on(async {
                let stalled = |_body: Bytes| std::future::pending::<Result<(), Failure>>();
                let _running = Running::start(from, |from| {
                    Router::new().route("bench", from, stalled).prefetch(BACKLOG).max_bytes(HELD)
                });
                tokio::time::sleep(FETCHING).await;
                report(before)
            })
        }
    }
}

/// A message that takes as much room in the client's buffers as it takes on the wire.
fn incompressible() -> Message {
    // Seeded anew each time.
    let random = RandomState::new();
    let mut body = Vec::with_capacity(BYTES);
    while body.len() < BYTES {
        body.extend(random.hash_one(body.len()).to_le_bytes());
    }
    Message::new(body)
}

fn report(before: u64) -> io::Result<()> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{:.1} MiB more than before ({:.1} MiB)",
        mib(machine::resident("self")?.saturating_sub(before)),
        mib(before)
    );
    Ok(())
}

fn in_a_process(arm: &str, topic: &str) -> io::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.args(["held", arm, topic]).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut said)?;
    }
    // What it holds is not to be put down in order.
    let _ = child.kill();
    child.wait()?;
    Ok(said.trim().to_owned())
}
