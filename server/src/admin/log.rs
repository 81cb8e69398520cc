//! `/-/log`: what is logged, changed while the process runs.

use std::time::Duration;

use axum::extract::{self, RawQuery};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mainspring_config as config;
use mainspring_observe::log::Handle;
use mainspring_web::Problem;
use tokio::task::JoinSet;

use super::State;

/// A filter that is there for a time only, and the one that comes back. Dropping it lets the filter stay.
#[derive(Debug)]
pub(crate) struct Revert {
    from: String,
    to: String,
    _task: JoinSet<()>,
}

pub(super) async fn show(extract::State(state): extract::State<State>) -> Response {
    match &state.log {
        Some(log) => format!("{}\n", log.filter()).into_response(),
        None => no_log(),
    }
}

/// Puts the body's filter into force. With `?for=5m` the old one comes back by itself after that time, unless it was
/// changed again meanwhile.
pub(super) async fn change(
    extract::State(state): extract::State<State>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let Some(log) = state.log else { return no_log() };
    let revert_after = match query.as_deref().filter(|query| !query.is_empty()).map(revert_after).transpose() {
        Ok(after) => after,
        Err(problem) => return problem.into_response(),
    };
    let mut pending = state.revert.lock().await;
    let before = log.filter();
    let Ok(wanted) = std::str::from_utf8(&body).map(str::trim) else {
        return Problem::bad_request("a filter is text in UTF-8").into_response();
    };
    if let Err(error) = log.set_filter(wanted) {
        return Problem::bad_request(error.to_string()).into_response();
    }
    tracing::info!(filter = wanted, before, "log filter changed");
    // A filter that was itself there for a time only is not what should come back.
    let lasting = pending.take().filter(|revert| revert.from == before).map_or(before, |revert| revert.to);
    *pending = revert_after.map(|after| Revert::begin(log, wanted.to_owned(), lasting, after));
    format!("{wanted}\n").into_response()
}

impl Revert {
    fn begin(log: Handle, from: String, to: String, after: Duration) -> Self {
        let mut task = JoinSet::new();
        let (now, then) = (from.clone(), to.clone());
        task.spawn(async move {
            tokio::time::sleep(after).await;
            if log.filter() == now && log.set_filter(&then).is_ok() {
                tracing::info!(filter = then, "log filter reverted");
            }
        });
        Self { from, to, _task: task }
    }
}

fn revert_after(query: &str) -> Result<Duration, Problem> {
    let bad = || Problem::bad_request("the only parameter is `for`, a duration such as `5m` above 0s");
    let duration: config::Duration = query.strip_prefix("for=").ok_or_else(bad)?.parse().map_err(|_| bad())?;
    if duration.get().is_zero() { Err(bad()) } else { Ok(duration.get()) }
}

fn no_log() -> Response {
    Problem::new(StatusCode::NOT_IMPLEMENTED).detail("this process does not use the kit's log").into_response()
}
