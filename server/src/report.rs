//! The stop report: one event that says how the process ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainspring_daemon::Board;

use crate::http::Dispatch;
use crate::lifecycle::{Lifecycle, Phase, millis};
use crate::serve::{Connections, LeftOver, Stage};
use crate::supervisor::Roll;

/// What a shutdown did. Logged as the event `stopped`, and handed to tests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StopReport {
    /// Why the process stopped.
    pub cause: String,
    /// Whether the budget ran out, so that something was given up.
    pub forced: bool,
    /// How long each phase took; of the one that a second signal ends, how long it had taken by then.
    pub phases: Vec<(Phase, Duration)>,
    /// Requests that were answered to their end, since the start.
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

/// All that a report is made of. The control thread has one too, for when nobody else can speak any more.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    pub(crate) dispatch: Arc<Dispatch>,
    /// Absent in a test without ports.
    pub(crate) connections: Option<Arc<Connections>>,
    pub(crate) roll: Roll,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) board: Arc<Board>,
}

/// What the process had to give up when the budget ran out.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    pub(crate) connections: Vec<LeftOver>,
    pub(crate) daemons: Vec<String>,
    pub(crate) unflushed: Vec<String>,
}

impl Witness {
    /// What has become of everything by now. Requests that still run, because their handler does not yield, count as
    /// cut off: they will be when the process ends.
    pub(crate) fn report(&self, cause: String, forced: bool, given_up: GivenUp) -> StopReport {
        self.report_with(cause, forced, given_up, self.board.tallies())
    }

    /// The report of a process that ends here and now: what its daemons hold goes back to where it came from.
    pub(crate) fn last_report(&self, cause: String, given_up: GivenUp) -> StopReport {
        self.report_with(cause, true, given_up, self.board.tallies_with_held())
    }

    fn report_with(
        &self,
        cause: String,
        forced: bool,
        given_up: GivenUp,
        tallies: Vec<(&'static str, u64)>,
    ) -> StopReport {
        let (count, requests) = self.dispatch.aborted();
        let stuck = self.connections.as_ref().map(|connections| connections.left()).unwrap_or_default();
        let stuck = stuck.iter().filter(|left| {
            left.stage == Stage::Busy && !requests.iter().any(|request| request.peer == Some(left.peer))
        });
        let quiet = given_up.connections.iter().filter(|left| left.stage != Stage::Busy);
        let named = requests.iter().map(|request| name(request.peer, &request.route, request.age));
        let stuck = stuck.map(|left| name(Some(left.peer), self.route_of(left), left.age));
        let quiet = quiet.map(|left| name(Some(left.peer), left.stage.describe(), left.age));
        StopReport {
            cause,
            forced,
            phases: self.lifecycle.durations(),
            requests_finished: self.dispatch.finished(),
            requests_aborted: count + u64::try_from(self.dispatch.in_flight()).unwrap_or_default(),
            aborted: named.chain(stuck).chain(quiet).take(NAMED).collect(),
            daemons_aborted: given_up.daemons,
            unflushed: given_up.unflushed,
            tallies,
        }
    }

    fn route_of(&self, left: &LeftOver) -> &str {
        &self.dispatch.routes().get(left.route).template
    }
}

/// More are counted, but not named.
const NAMED: usize = 100;

fn name(peer: Option<SocketAddr>, what: &str, age: Duration) -> String {
    let peer = peer.map_or_else(|| "in-process".to_owned(), |peer| peer.to_string());
    format!("{peer} {what} {:.3}s", age.as_secs_f64())
}
