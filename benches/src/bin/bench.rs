//! The benches: `make bench`.
//!
//! `bench [http] [hostile] [watched] [memory] [kafka]` runs these parts, without names all; `bench B4 B5` runs these
//! comparisons on Kafka.
//! `--rounds N` and `--seconds N` set how long, `--json FILE` also writes what was measured, with the machine's facts.
//! Gates are not here: see `bin/gates.rs`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use mainspring_benches::machine::Machine;
use mainspring_benches::{hostile, http, limits, pubsub, watched};
use serde_json::{Map, Value, json};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        #[cfg(feature = "kafka")]
        ["held", arm, topic] => pubsub::held(arm, topic),
        _ => limits::raise().and_then(|()| Options::read(args)).and_then(|options| run(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    parts: Vec<String>,
    rounds: usize,
    seconds: u64,
    json: Option<String>,
}

const PARTS: [&str; 5] = ["http", "hostile", "watched", "memory", "kafka"];
/// The comparisons that need a broker.
const ON_KAFKA: [&str; 7] = ["B4", "B5", "B6", "B7", "B11", "B13", "exactly-once"];

impl Options {
    fn read(args: Vec<String>) -> io::Result<Self> {
        let mut options = Self { parts: Vec::new(), rounds: 5, seconds: 2, json: None };
        let mut args = args.into_iter();
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).ok_or(wrong("a number"));
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--rounds" => options.rounds = number(args.next())?,
                "--seconds" => options.seconds = number(args.next())? as u64,
                "--json" => options.json = Some(args.next().ok_or(wrong("a file"))?),
                part if PARTS.contains(&part) || ON_KAFKA.contains(&part) => options.parts.push(arg),
                _ => {
                    let known = [&PARTS[..], &ON_KAFKA].concat().join(", ");
                    return Err(wrong(&format!("{known}, --rounds N, --seconds N or --json FILE, and not `{arg}`")));
                }
            }
        }
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }

    /// Those of the comparisons on Kafka that are to run.
    fn on_kafka(&self) -> Vec<&'static str> {
        ON_KAFKA.into_iter().filter(|name| self.wants("kafka") || self.wants(name)).collect()
    }
}

fn wrong(expected: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("expected {expected}"))
}

fn run(options: &Options) -> io::Result<()> {
    let machine = Machine::here();
    println!("{machine}");
    let mut results = Map::new();
    if options.wants("http") {
        results.insert("http".to_owned(), http::run(options.rounds, Duration::from_secs(options.seconds))?);
    }
    let time = Duration::from_secs(options.seconds);
    if options.wants("hostile") {
        results.insert("hostile".to_owned(), json!(hostile::run(options.rounds, time)?));
    }
    if options.wants("watched") {
        results.insert("watched".to_owned(), json!(watched::run(options.rounds, time)?));
    }
    if options.wants("memory") {
        note(&mut results, pubsub::in_process(options.rounds)?);
    }
    let names = options.on_kafka();
    if !names.is_empty() {
        on_kafka(&mut results, &names, options.rounds)?;
    }
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", json!({ "machine": machine, "results": results })))?;
    }
    Ok(())
}

#[cfg(feature = "kafka")]
fn on_kafka(results: &mut Map<String, Value>, names: &[&str], rounds: usize) -> io::Result<()> {
    match pubsub::Kafka::find() {
        Ok(kafka) => note(results, pubsub::on_kafka(&kafka, names, rounds)?),
        Err(error) => println!("\nSKIPPED {} on Kafka: {error}", names.join(", ")),
    }
    Ok(())
}

#[cfg(not(feature = "kafka"))]
fn on_kafka(_: &mut Map<String, Value>, names: &[&str], _: usize) -> io::Result<()> {
    println!("\nSKIPPED {} on Kafka: built without the feature `kafka`", names.join(", "));
    Ok(())
}

fn note(results: &mut Map<String, Value>, rows: pubsub::Rows) {
    results.extend(rows.into_iter().map(|(name, rows)| (name.to_owned(), json!(rows))));
}
