//! The stop report: one event that says how the process ended.

use std::time::Duration;

use crate::http::Aborted;
use crate::lifecycle::{Phase, millis};
use crate::serve::LeftOver;

/// What a shutdown did. Logged as the event `stopped`, and handed to tests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StopReport {
    /// Why the process stopped.
    pub cause: String,
    /// Whether the budget ran out, so that something was given up.
    pub forced: bool,
    /// How long each phase took.
    pub phases: Vec<(Phase, Duration)>,
    /// Requests that were answered after the stop was requested.
    pub requests_finished: u64,
    /// Requests that were cut off.
    pub requests_aborted: u64,
    /// What was cut off, one item each: peer, route or what it was doing, age. At most a hundred are named.
    pub aborted: Vec<String>,
    /// Daemons that did not end in time.
    pub daemons_aborted: Vec<String>,
    /// Flushes that failed or did not end in time.
    pub unflushed: Vec<String>,
    /// Counts of the daemons, such as `deliveries_settled` and `deliveries_returned`.
    pub tallies: Vec<(&'static str, u64)>,
}

impl StopReport {
    /// Logs the report.
    pub(crate) fn log(&self) {
        let took = |phase| {
            let found = self.phases.iter().find(|(past, _)| *past == phase);
            found.map_or(0.0, |(_, took)| millis(*took))
        };
        let tally = |key| self.tallies.iter().find(|(name, _)| *name == key).map_or(0, |(_, count)| *count);
        let others = self.tallies.iter().filter(|(name, _)| !name.starts_with("deliveries_"));
        let others: Vec<_> = others.map(|(name, count)| format!("{name}={count}")).collect();
        tracing::info!(
            cause = self.cause,
            forced = self.forced,
            ready_ms = took(Phase::Ready),
            lame_duck_ms = took(Phase::LameDuck),
            draining_ms = took(Phase::Draining),
            flushing_ms = took(Phase::Flushing),
            requests_finished = self.requests_finished,
            requests_aborted = self.requests_aborted,
            aborted = self.aborted.join("; "),
            daemons_aborted = self.daemons_aborted.join(", "),
            unflushed = self.unflushed.join("; "),
            deliveries_settled = tally("deliveries_settled"),
            deliveries_returned = tally("deliveries_returned"),
            tallies = others.join(" "),
            "stopped"
        );
    }
}

/// Names what was cut off: requests by their route, other connections by what they were doing.
pub(crate) fn name_aborted(requests: &[Aborted], left: &[LeftOver]) -> Vec<String> {
    let requests = requests.iter().map(|request| {
        let peer = request.peer.map_or_else(|| "in-process".to_owned(), |peer| peer.to_string());
        format!("{peer} {} {:.3}s", request.route, request.age.as_secs_f64())
    });
    let busy = "request in progress";
    let others = left.iter().filter(|left| left.doing != busy);
    let others = others.map(|left| format!("{} {} {:.3}s", left.peer, left.doing, left.age.as_secs_f64()));
    requests.chain(others).take(100).collect()
}
