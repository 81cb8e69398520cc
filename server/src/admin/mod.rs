//! The admin listener: what operators, probes and scrapers ask. It runs on the control thread, so it answers while the
//! main runtime is stalled. The environment is never shown.
//!
//! | path | answers | file |
//! |---|---|---|
//! | `/` | this list, for a person | `index.rs` |
//! | `/livez` | whether the process should be restarted | `probes.rs` |
//! | `/readyz`, `/readyz?verbose` | whether it should get traffic, and why not | `probes.rs` |
//! | `/startupz` | whether it has started | `probes.rs` |
//! | `/metrics` | OpenMetrics, or an older format by `Accept` | here |
//! | `/-/log` | GET the filter; PUT another, `?for=5m` to have it back by itself | `log.rs` |
//! | `/-/config` | the effective configuration with origins, secrets masked | here |
//! | `/debug/pprof/…` | CPU and heap profiles, threads, tasks; off unless `pprof.enabled` | `pprof/mod.rs` |
//! | pages of the daemons, such as `/debug/pubsub` | | `pages.rs` |

mod guard;
mod index;
mod log;
mod pages;
mod pprof;
mod probes;
mod runtime;

use std::sync::Arc;

use axum::extract;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mainspring_config::Secret;
use mainspring_daemon::Board;
use mainspring_observe::metrics::Exposition;
use mainspring_observe::{Identity, metrics};

use crate::http::Dispatch;
use crate::lifecycle::Lifecycle;
use crate::metrics::ServerMetrics;
use crate::tasks::Tasks;

pub(crate) use pprof::UNTIMED;
pub(crate) use probes::Heartbeat;
pub(crate) use runtime::RuntimeMetrics;

/// What the admin listener reads.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) log: Option<mainspring_observe::log::Handle>,
    pub(crate) config: String,
    pub(crate) metrics_path: String,
    /// With which clients on other machines may change something.
    pub(crate) token: Option<Secret>,
    pub(crate) pprof: bool,
    pub(crate) tasks: Tasks,
    /// The log filter that will come back by itself.
    pub(crate) revert: Arc<tokio::sync::Mutex<Option<log::Revert>>>,
}

/// The admin listener's routes.
pub(crate) fn router(state: State) -> axum::Router {
    let readiness = Arc::new(probes::Readiness::default());
    axum::Router::new()
        .route("/", get(index::page))
        .route("/livez", get(probes::livez))
        .route("/readyz", get(move |state, query| probes::readyz(state, query, readiness)))
        .route("/startupz", get(probes::startupz))
        .route(&state.metrics_path, get(scrape))
        .route("/-/log", get(log::show).put(log::change))
        .route("/-/config", get(config))
        .merge(pprof::routes(state.pprof))
        .fallback(pages::page)
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::check))
        .with_state(state)
}

/// OpenMetrics, unless the scraper prefers one of the older formats.
async fn scrape(extract::State(state): extract::State<State>, headers: HeaderMap) -> Response {
    state.metrics.phase.set(state.lifecycle.phase() as i64);
    let exposition = Exposition::negotiate(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    let registries = [metrics::registry(), &state.metrics.registry, metrics::service()];
    ([(CONTENT_TYPE, exposition.content_type())], exposition.render(&registries)).into_response()
}

async fn config(extract::State(state): extract::State<State>) -> String {
    state.config
}
