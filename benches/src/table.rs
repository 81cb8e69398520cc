//! Medians, spread, and how they are printed.

use serde::Serialize;

use crate::arms::Arm;

/// What the rounds of one arm gave.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The arm.
    pub arm: Arm,
    /// CPU time of the server for one request, in microseconds, one value a round.
    pub cpu: Vec<f64>,
    /// Requests a second, one value a round.
    pub rate: Vec<f64>,
    /// The 99th percentile of the latency in microseconds, one value a round.
    pub p99: Vec<f64>,
    /// Allocations and allocated bytes for one request.
    pub allocations: (f64, f64),
    /// Resident memory before the first request, in bytes.
    pub idle: u64,
    /// Resident memory after the rounds, in bytes.
    pub resident: u64,
    /// Resident memory of a connection that never spoke, in bytes.
    pub silent: u64,
}

impl Row {
    /// An arm that has not run yet.
    pub fn new(arm: Arm) -> Self {
        let (cpu, rate, p99) = (vec![], vec![], vec![]);
        Self { arm, cpu, rate, p99, allocations: (0.0, 0.0), idle: 0, resident: 0, silent: 0 }
    }
}

/// The middle one of `values`.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The smallest and the largest of `values`.
pub fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// Prints the rows as a Markdown table, each beside the first.
pub fn print(title: &str, rows: &[Row]) {
    println!(
        "\n| {title} | CPU µs/request: median (min–max) | × bare | requests/s | p99 µs | allocations | bytes | MiB idle | MiB after | bytes of a silent connection |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let Some(reference) = rows.first().map(|row| median(&row.cpu)) else { return };
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    for row in rows {
        let (low, high) = spread(&row.cpu);
        println!(
            "| {} | {:.2} ({low:.2}–{high:.2}) | {:.2} | {:.0} | {:.0} | {:.1} | {:.0} | {:.1} | {:.1} | {} |",
            row.arm.title(),
            median(&row.cpu),
            median(&row.cpu) / reference,
            median(&row.rate),
            median(&row.p99),
            row.allocations.0,
            row.allocations.1,
            mib(row.idle),
            mib(row.resident),
            row.silent,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_a_spread_the_ends() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (1.0, 3.0));
    }
}
