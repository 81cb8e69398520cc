//! The health answers of the public listener.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use mainspring_observe::Identity;

use crate::config::Health;
use crate::lifecycle::Lifecycle;

/// The paths that answer when none is configured.
const DEFAULT_PATHS: [&str; 2] = ["/healthz", "/status.txt"];

/// Adds the health paths that the service does not serve itself. Answers the router and those paths.
///
/// `/healthz` says `"OK"` in JSON; any other path says `ok-<name>-<version>-<instance>` as text. Both are 503 once a
/// stop has been requested.
pub(crate) fn mount(
    mut router: Router,
    config: &Health,
    identity: &Identity,
    lifecycle: &Lifecycle,
) -> (Router, Vec<String>) {
    let paths = match &config.path {
        Some(path) => vec![path.clone()],
        None => DEFAULT_PATHS.map(str::to_owned).to_vec(),
    };
    let text = format!("ok-{}-{}-{}", identity.service, identity.version, identity.instance);
    let taken = crate::http::templates(&router);
    for path in paths.iter().filter(|path| !taken.contains(path)) {
        let (json, text, lifecycle) = (path == DEFAULT_PATHS[0], text.clone(), lifecycle.clone());
        let answer = move || std::future::ready(answer(json, &text, &lifecycle));
        router = router.route(path, get(answer));
    }
    (router, paths)
}

fn answer(json: bool, text: &str, lifecycle: &Lifecycle) -> Response {
    match (lifecycle.is_stopping(), json) {
        (true, true) => (StatusCode::SERVICE_UNAVAILABLE, Json("stopping")).into_response(),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "service unavailable").into_response(),
        (false, true) => Json("OK").into_response(),
        (false, false) => text.to_owned().into_response(),
    }
}
