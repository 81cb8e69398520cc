//! What a profile is asked to be, as the query says it.

use std::ops::RangeInclusive;

use mainspring_observe::profile::cpu;
use mainspring_web::Problem;

/// What a profile is asked to be.
pub(super) struct Wanted {
    pub(super) seconds: Option<u32>,
    pub(super) hz: u32,
    pub(super) format: Format,
}

/// What it comes as.
#[derive(Clone, Copy)]
pub(super) enum Format {
    Pprof,
    Folded,
    Svg,
}

/// Seconds that a profile may take.
const SECONDS: RangeInclusive<u32> = 1..=300;

impl Wanted {
    /// Reads a query; `cpu` for a profile of the CPU, which has a rate too.
    pub(super) fn read(query: Option<&str>, cpu: bool) -> Result<Self, Problem> {
        let mut wanted = Self { seconds: None, hz: 99, format: Format::Pprof };
        let mut seen = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&name) {
                return Err(Problem::bad_request(format!("{name} is there twice; give it once")));
            }
            match name {
                "seconds" => wanted.seconds = Some(within(name, value, &SECONDS)?),
                "hz" if cpu => wanted.hz = within(name, value, &cpu::HZ)?,
                "format" => {
                    wanted.format = match value {
                        "pprof" => Format::Pprof,
                        "folded" => Format::Folded,
                        "svg" => Format::Svg,
                        _ => return Err(Problem::bad_request("format must be pprof, folded or svg")),
                    }
                }
                // Go's tools send these; a collection of garbage is nothing that happens here.
                "debug" | "gc" => {}
                _ => {
                    let known = if cpu { "seconds, hz and format" } else { "seconds and format" };
                    return Err(Problem::bad_request(format!("unknown parameter; there are {known}")));
                }
            }
            seen.push(name);
        }
        Ok(wanted)
    }
}

fn within(name: &str, value: &str, bounds: &RangeInclusive<u32>) -> Result<u32, Problem> {
    let number = value.parse().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| {
        let (from, to) = (bounds.start(), bounds.end());
        Problem::bad_request(format!("{name} must be a whole number from {from} to {to}"))
    })
}
