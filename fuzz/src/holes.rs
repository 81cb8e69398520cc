//! The hole notes of the Kafka driver: what is done above the committed position.
//!
//! An offset that is taken for done and is not is a lost message, so a note is either sound or nothing.

/// The driver's own file: the driver itself cannot be built without its client, a C library.
#[path = "../../pubsub/kafka/src/holes.rs"]
mod notes;

use notes::{MAX_BYTES, Noted, Run, encode};

use crate::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    // Brokers count from 0, and no partition will ever come near the end of 63 bits.
    let position = i64::from_le_bytes(input.array()) & (i64::MAX >> 1);
    match std::str::from_utf8(input.0) {
        Ok(text) if input.0.starts_with(b"ms1;") => others(position, text),
        _ => ours(position, input),
    }
}

/// What somebody else wrote there.
fn others(position: i64, text: &str) {
    let mine = text.replacen("ms1;0;", &format!("ms1;{position};"), 1);
    let noted = Noted::decode(position, &mine);
    let runs: Vec<Run> = noted.from(position).collect();
    let mut end = position;
    for run in &runs {
        assert!(end < run.first && run.first <= run.last, "runs out of order: {runs:?}");
        end = run.last;
    }
    let again = encode(position, runs.iter().copied());
    assert_eq!(Noted::decode(position, &again).from(position).collect::<Vec<_>>(), joined(&runs));
    if !runs.is_empty() {
        assert_eq!(Noted::decode(position + 1, &mine), Noted::default(), "a note for another position is believed");
    }
}

/// What the driver writes: any runs, of which as many come back as fit.
fn ours(position: i64, mut input: Input<'_>) {
    let (mut runs, mut end) = (Vec::new(), position);
    while !input.0.is_empty() {
        let [gap, length] = [input.array::<5>(), input.array::<5>()].map(number);
        let (first, last) = (end + 2 + gap, end + 2 + gap + length);
        runs.push(Run { first, last });
        end = last;
    }
    let text = encode(position, runs.iter().copied());
    assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
    let mut noted = Noted::decode(position, &text);
    let back: Vec<Run> = noted.from(position).collect();
    assert_eq!(back, runs[..back.len()], "what is noted was not done");
    assert!(back.len() == runs.len() || text.len() > MAX_BYTES - 20, "{} of {} runs fit", back.len(), runs.len());
    for run in &back {
        let taken = [run.first - 1, run.first, run.last, run.last + 1].map(|offset| noted.take(offset));
        assert_eq!(taken, [false, true, true, false], "{run:?}");
    }
}

/// Runs that touch are written as one.
fn joined(runs: &[Run]) -> Vec<Run> {
    let mut joined: Vec<Run> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(run.first) => last.last = run.last,
            _ => joined.push(*run),
        }
    }
    joined
}

/// Five bytes, of which the first says how many of the others count: small numbers are as likely as large ones.
fn number(bytes: [u8; 5]) -> i64 {
    let [size, a, b, c, d] = bytes;
    i64::from(u32::from_le_bytes([a, b, c, d]) >> (size & 31))
}
