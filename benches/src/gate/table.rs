//! The committed numbers, and what is said when a measured one differs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

use super::Case;

/// What one request or message costs.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Cost {
    /// Instructions in user space.
    pub instructions: u64,
    /// Allocations, growing ones included.
    pub allocations: f64,
}

/// The costs of all cases, as `gates.toml` has them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Table(BTreeMap<String, Cost>);

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Within what is tolerated.
    Same,
    /// Better than the table knows: it could be lowered.
    Fell(String),
    /// Worse, or not in the table.
    Rose(String),
}

/// How far instructions may be from the table: allocators and hash maps are not quite the same every time.
const TOLERANCE: f64 = 0.03;
/// How far allocations may be from the table: vectors that grow now and then.
const ALLOCATIONS: f64 = 0.05;

const HEAD: &str = "\
# What a request and a message cost: instructions in user space, and allocations. `scripts/gates.sh` holds what it
# measures against these numbers and fails when one has risen; `scripts/gates.sh --accept` writes them anew.
#
# Instructions depend on compiler, libc and processor; when all of them moved, and the bare arms with them, it was those.
";

impl Cost {
    /// The lesser of each.
    pub fn min(self, other: Self) -> Self {
        Self {
            instructions: self.instructions.min(other.instructions),
            allocations: self.allocations.min(other.allocations),
        }
    }
}

impl Table {
    /// Reads the file's text.
    ///
    /// # Errors
    /// When it is not a table of costs; says where.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The file's text; `measured_on` says by what compiler and processor.
    pub fn print(&self, measured_on: &str) -> String {
        let mut text = format!("{HEAD}# Measured with {measured_on}.\n");
        for (name, Cost { instructions, allocations }) in &self.0 {
            // Writing into a string cannot fail.
            let _ = write!(text, "\n[{name}]\ninstructions = {instructions}\nallocations = {allocations:.2}\n");
        }
        text
    }

    /// Notes what a case costs.
    pub fn set(&mut self, case: Case, cost: Cost) {
        self.0.insert(case.name(), cost);
    }

    /// Holds what was measured against the table.
    pub fn judge(&self, case: Case, cost: Cost) -> Verdict {
        let name = case.name();
        let Some(known) = self.0.get(&name) else {
            return Verdict::Rose(format!("{name}: gates.toml has no such case"));
        };
        let change = cost.instructions as f64 / known.instructions as f64 - 1.0;
        let instructions = format!(
            "{name}: instructions went from {} to {} ({:+.1} %)",
            known.instructions,
            cost.instructions,
            change * 100.0
        );
        let allocations = format!("{name}: allocations went from {:.2} to {:.2}", known.allocations, cost.allocations);
        let more = cost.allocations - known.allocations;
        match () {
            () if more > ALLOCATIONS => Verdict::Rose(allocations),
            () if change > TOLERANCE => Verdict::Rose(instructions),
            () if more < -ALLOCATIONS => Verdict::Fell(allocations),
            () if change < -TOLERANCE => Verdict::Fell(instructions),
            () => Verdict::Same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Path;

    const CASE: Case = Case::Messages(Path::Memory);

    fn cost(instructions: u64, allocations: f64) -> Cost {
        Cost { instructions, allocations }
    }

    fn table() -> Table {
        let mut table = Table::default();
        table.set(CASE, cost(1000, 2.0));
        table
    }

    #[test]
    fn what_rises_beyond_the_tolerance_is_named_with_both_numbers() {
        assert_eq!(table().judge(CASE, cost(1029, 2.04)), Verdict::Same);
        let rose = table().judge(CASE, cost(1100, 2.0));
        assert_eq!(rose, Verdict::Rose("memory: instructions went from 1000 to 1100 (+10.0 %)".to_owned()));
        let rose = table().judge(CASE, cost(1000, 3.0));
        assert_eq!(rose, Verdict::Rose("memory: allocations went from 2.00 to 3.00".to_owned()));
        assert!(matches!(table().judge(CASE, cost(900, 2.0)), Verdict::Fell(_)));
        assert!(matches!(Table::default().judge(CASE, cost(1, 0.0)), Verdict::Rose(_)));
    }

    #[test]
    fn a_table_is_read_as_it_was_printed() {
        assert_eq!(Table::parse(&table().print("this machine")), Ok(table()));
    }
}
