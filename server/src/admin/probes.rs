//! `/livez`, `/readyz`, `/startupz`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{self, RawQuery};
use axum::http::StatusCode;
use mainspring_daemon::Chain;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::State;
use crate::lifecycle::Phase;

/// The main runtime's pulse. Liveness is about this process alone: a broker that is down is no reason to restart it.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    start: Instant,
    last: Arc<AtomicU64>,
}

/// The results of the dependency checks, kept for a moment so that many probes are not many checks.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Vec<Checked>)>>);

#[derive(Clone, Debug)]
struct Checked {
    name: String,
    required: bool,
    failure: Option<String>,
}

const BEAT: Duration = Duration::from_millis(500);
/// A runtime that has been still for this long will not come back by itself.
const STALLED: Duration = Duration::from_secs(10);
/// How long check results are kept.
const FRESH: Duration = Duration::from_secs(1);

impl Default for Heartbeat {
    fn default() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }
}

impl Heartbeat {
    /// Beats, for ever, and says in `lag` how much later than planned each beat came: that long a task that could run had
    /// to wait. Runs on the main runtime.
    pub(crate) async fn beat(&self, lag: &Histogram) {
        loop {
            let began = Instant::now();
            self.last.store((began - self.start).as_millis() as u64, Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
            lag.observe(began.elapsed().saturating_sub(BEAT).as_secs_f64());
        }
    }

    fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

pub(super) async fn livez(extract::State(state): extract::State<State>) -> (StatusCode, String) {
    let age = state.heartbeat.age();
    if age > STALLED {
        let said = format!("the main runtime has not moved for {:.1} s: a handler blocks it\n", age.as_secs_f64());
        return (StatusCode::SERVICE_UNAVAILABLE, said);
    }
    (StatusCode::OK, "ok\n".to_owned())
}

pub(super) async fn startupz(extract::State(state): extract::State<State>) -> (StatusCode, String) {
    if state.lifecycle.was_ready() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, held_back(&state))
}

/// Ready means: in service, nobody holds it back, and every required check passes.
pub(super) async fn readyz(
    extract::State(state): extract::State<State>,
    RawQuery(query): RawQuery,
    readiness: Arc<Readiness>,
) -> (StatusCode, String) {
    let phase = state.lifecycle.phase();
    let unready = state.board.unready();
    let checks = readiness.check(&state).await;
    let failed = checks.iter().any(|check| check.required && check.failure.is_some());
    let ready = phase == Phase::Ready && unready.is_empty() && !failed;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|key| key == "verbose" || key.starts_with("verbose=")));
    if ready && !verbose {
        return (status, "ok\n".to_owned());
    }
    let mut text = String::new();
    let sign = |good: bool| if good { "[+]" } else { "[-]" };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}phase {phase}", sign(phase == Phase::Ready));
    text.push_str(&held_back(&state));
    for check in &checks {
        let note = if check.required { "" } else { " (optional)" };
        let _ = match &check.failure {
            None => writeln!(text, "[+]{}{note} ok", check.name),
            Some(failure) => writeln!(text, "[-]{}{note} {failure}", check.name),
        };
    }
    let _ = writeln!(text, "readyz {}", if ready { "ok" } else { "failed" });
    (status, text)
}

impl Readiness {
    /// Runs all checks at the same time, each within its own timeout, or answers with the last results.
    async fn check(&self, state: &State) -> Vec<Checked> {
        // Held across the checks on purpose: whoever asks meanwhile gets this answer.
        let mut last = self.0.lock().await;
        if let Some((when, results)) = &*last
            && when.elapsed() < FRESH
        {
            return results.clone();
        }
        let mut running = JoinSet::new();
        for (place, check) in state.board.checks().into_iter().enumerate() {
            running.spawn(async move {
                let failure = check.run().await.err().map(|error| Chain(&*error).to_string());
                (place, Checked { name: check.name().to_owned(), required: check.is_required(), failure })
            });
        }
        let mut results = Vec::new();
        for (place, check) in state.board.checks().into_iter().enumerate() {
            let failure = Some("the check panicked".to_owned());
            results.push((place, Checked { name: check.name().to_owned(), required: check.is_required(), failure }));
        }
        while let Some(checked) = running.join_next().await {
            if let Ok((place, checked)) = checked
                && let Some(result) = results.get_mut(place)
            {
                result.1 = checked;
            }
        }
        let results: Vec<_> = results.into_iter().map(|(_, checked)| checked).collect();
        *last = Some((Instant::now(), results.clone()));
        results
    }
}

fn held_back(state: &State) -> String {
    state.board.unready().iter().map(|(name, reason)| format!("[-]{name} {reason}\n")).collect()
}
