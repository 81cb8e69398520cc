//! Arms that run in turn, round after round, so that whatever else the machine does falls on all of them.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::machine::{self, TICK};
use crate::table::{median, spread};

/// What one arm of a comparison did in one round.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Messages that were sent, handled, or whatever the comparison is about; 0 when it is not about time.
    pub messages: usize,
    /// How long that took.
    pub took: Duration,
    /// Processor time of this process, of all its threads.
    pub cpu: Duration,
    /// The 99th percentile of the time that one of them took, where it was measured.
    pub p99: Option<Duration>,
    /// What is worth saying besides, for example what was lost.
    pub note: String,
}

/// Several ways to do the same thing.
pub struct Comparison<'a> {
    title: String,
    arms: Vec<(String, Arm<'a>)>,
}

type Arm<'a> = Box<dyn Fn() -> io::Result<Sample> + 'a>;

/// What came out of one arm: medians, with the least and the most.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    arm: String,
    cpu_ns: Option<Values>,
    per_second: Option<Values>,
    p99_ms: Option<Values>,
    note: String,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Values {
    median: f64,
    min: f64,
    max: f64,
}

impl Sample {
    /// Runs `work`, which answers how many messages it saw to.
    pub fn of(work: impl FnOnce() -> io::Result<usize>) -> io::Result<Self> {
        let (ticks, cpu, began) = (machine::cpu_ticks("self")?, machine::cpu_time("self")?, Instant::now());
        let messages = work()?;
        let (took, cpu) = (began.elapsed(), machine::cpu_time("self")?.saturating_sub(cpu));
        let ticks = machine::cpu_ticks("self")?.saturating_sub(ticks);
        // Coarser, but it knows of threads that have ended since, as those of a client do that was closed.
        let cpu = if ticks > cpu + 2 * TICK { ticks } else { cpu };
        Ok(Self { messages, took, cpu, p99: None, note: String::new() })
    }
}

impl<'a> Comparison<'a> {
    /// A comparison without arms.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), arms: Vec::new() }
    }

    /// Adds an arm. The first is what the others are compared with.
    pub fn arm(mut self, name: impl Into<String>, run: impl Fn() -> io::Result<Sample> + 'a) -> Self {
        self.arms.push((name.into(), Box::new(run)));
        self
    }

    /// Runs the arms in turn and prints the table.
    ///
    /// # Errors
    /// When an arm fails.
    pub fn run(self, rounds: usize) -> io::Result<Vec<Row>> {
        let mut samples: Vec<Vec<Sample>> = self.arms.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            eprintln!("{}: round {round} of {rounds}", self.title);
            for ((name, arm), samples) in self.arms.iter().zip(&mut samples) {
                samples.push(arm().map_err(|error| io::Error::other(format!("{name}: {error}")))?);
            }
        }
        let rows: Vec<Row> =
            self.arms.iter().zip(&samples).map(|((name, _), samples)| Row::of(name, samples)).collect();
        print(&self.title, &rows);
        Ok(rows)
    }
}

impl Row {
    fn of(arm: &str, samples: &[Sample]) -> Self {
        let timed = samples.iter().all(|sample| sample.messages > 0);
        let values = |of: fn(&Sample) -> f64| timed.then(|| Values::of(&samples.iter().map(of).collect::<Vec<_>>()));
        let p99: Option<Vec<f64>> = samples.iter().map(|sample| Some(sample.p99?.as_secs_f64() * 1e3)).collect();
        Self {
            arm: arm.to_owned(),
            cpu_ns: values(|sample| sample.cpu.as_secs_f64() * 1e9 / sample.messages as f64),
            per_second: values(|sample| sample.messages as f64 / sample.took.as_secs_f64()),
            p99_ms: p99.map(|p99| Values::of(&p99)),
            note: samples.last().map(|sample| sample.note.clone()).unwrap_or_default(),
        }
    }
}

impl Values {
    fn of(values: &[f64]) -> Self {
        let (min, max) = spread(values);
        Self { median: median(values), min, max }
    }
}

impl std::fmt::Debug for Comparison<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Comparison").field("title", &self.title).finish_non_exhaustive()
    }
}

fn print(title: &str, rows: &[Row]) {
    println!("\n| {title} | CPU ns: median (min–max) | a second: median (min–max) | × first | p99 ms | |");
    println!("|---|---|---|---|---|---|");
    let first = rows.first().and_then(|row| row.per_second);
    for Row { arm, cpu_ns, per_second, p99_ms, note } in rows {
        let shown = |values: &Option<Values>, digits: usize| match values {
            Some(Values { median, min, max }) => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
            None => String::new(),
        };
        let times = first.zip(*per_second).map(|(first, own)| format!("{:.2}", own.median / first.median));
        println!(
            "| {arm} | {} | {} | {} | {} | {note} |",
            shown(cpu_ns, 0),
            shown(per_second, 0),
            times.unwrap_or_default(),
            shown(p99_ms, 1)
        );
    }
}
