//! The health answers of the public listener: what load balancers ask.
//!
//! Three strategies, Gizmo's: `simple` and `esx` answer by themselves, `custom` asks a handler of the service. Whatever
//! the strategy, the answer is 503 as soon as a stop is requested. `esx` also makes the stop wait until every load
//! balancer has heard so.

use axum::extract::{ConnectInfo, RawQuery, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Json, Router};
use mainspring_observe::Identity;

use crate::config::{Health, HealthKind};
use crate::lifecycle::Lifecycle;
use crate::pollers::Pollers;

/// The paths that answer when none is configured.
const DEFAULT_PATHS: [&str; 2] = ["/healthz", "/status.txt"];

type Peer = Option<Extension<ConnectInfo<std::net::SocketAddr>>>;

/// What the public listener says of its health.
pub(crate) struct Mounted {
    pub(crate) router: Router,
    /// Where it is said.
    pub(crate) paths: Vec<String>,
    /// Those who ask; only `esx` has to know.
    pub(crate) pollers: Option<Pollers>,
}

/// Adds the health paths that the service does not serve itself.
///
/// `/healthz` says `"OK"` in JSON; any other path says `ok-<name>-<version>-<instance>` as text. Fails when a handler is
/// needed and not given.
pub(crate) fn mount(
    mut router: Router,
    config: &Health,
    custom: Option<MethodRouter>,
    identity: &Identity,
    lifecycle: &Lifecycle,
) -> Result<Mounted, &'static str> {
    if config.kind == HealthKind::Custom && custom.is_none() {
        return Err("health.kind is `custom`, but the program has no handler for it: give SimpleServer::health one, \
                    or set health.kind to `simple`");
    }
    if config.kind != HealthKind::Custom && custom.is_some() {
        tracing::warn!("the program has a health handler, which is not asked: health.kind is not `custom`");
    }
    let paths = match &config.path {
        Some(path) => vec![path.clone()],
        None => DEFAULT_PATHS.map(str::to_owned).to_vec(),
    };
    let pollers = (config.kind == HealthKind::Esx).then(|| Pollers::new(&config.esx));
    let text = format!("ok-{}-{}-{}", identity.service, identity.version, identity.instance);
    let taken = crate::http::templates(&router);
    if config.path.as_ref().is_some_and(|path| taken.contains(path)) {
        tracing::warn!(
            path = paths[0],
            "health.path is a route of the service: that answers, and not the health check"
        );
    }
    for path in paths.iter().filter(|path| !taken.contains(path)) {
        let json = path == DEFAULT_PATHS[0];
        let (text, pollers, lifecycle) = (text.clone(), pollers.clone(), lifecycle.clone());
        let asked = match (&custom, config.kind) {
            (Some(custom), HealthKind::Custom) => custom.clone(),
            _ => get(move || std::future::ready(if json { Json("OK").into_response() } else { text.into_response() })),
        };
        let stopping = move |peer: Peer, RawQuery(query): RawQuery, request: Request, next: Next| {
            let stopping = lifecycle.is_stopping();
            if let (Some(pollers), Some(Extension(ConnectInfo(peer)))) = (&pollers, peer) {
                pollers.asked(peer.ip(), query.as_deref().unwrap_or_default(), !stopping);
            }
            async move { if stopping { unavailable(json) } else { next.run(request).await } }
        };
        router = router.route(path, asked.layer(middleware::from_fn(stopping)));
    }
    Ok(Mounted { router, paths, pollers })
}

fn unavailable(json: bool) -> Response {
    if json {
        return (StatusCode::SERVICE_UNAVAILABLE, Json("stopping")).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "service unavailable").into_response()
}
