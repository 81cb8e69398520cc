//! Figures of a run that are no rates: medians and spread, as a table and as JSON.

use serde::Serialize;

use crate::table::{median, spread};

/// Rows of one table.
#[derive(Debug, Serialize)]
pub struct Figures {
    title: &'static str,
    rows: Vec<Figure>,
}

/// One row: what came out of each round.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
    /// What it should be.
    aim: &'static str,
}

impl Figures {
    /// A table without rows.
    pub fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn add(&mut self, what: impl Into<String>, unit: &'static str, values: &[f64], aim: &'static str) {
        let (min, max) = spread(values);
        self.rows.push(Figure { what: what.into(), unit, median: median(values), min, max, aim });
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("\n| {} | median (min–max) | aim |\n|---|---|---|", self.title);
        for Figure { what, unit, median, min, max, aim } in &self.rows {
            println!("| {what} | {median:.2} ({min:.2}–{max:.2}) {unit} | {aim} |");
        }
    }
}
