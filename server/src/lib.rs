//! Servers: from handlers to a process that can be operated.
//!
//! A user implements [`Service`], and [`SimpleServer`] makes a daemon of it: listeners, limits, health, metrics, logs,
//! background tasks, and a shutdown that loses nothing. [`App::launch`] goes round it all.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::Arc;
//! use axum::{Router, routing::get};
//! use mainspring_server::{self as server, Service, SimpleServer};
//! # use schemars::JsonSchema;
//! # use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize, JsonSchema)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config {
//!     server: server::Config,
//! }
//!
//! struct Hello;
//! impl Service for Hello {
//!     const NAME: &'static str = "hello";
//!     fn routes(self: Arc<Self>) -> Router {
//!         Router::new().route("/hello", get(async || "hello"))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     server::app!().launch(async |config: Config| server::run(config.server, Hello).await)
//! }
//! ```
//!
//! | question | file |
//! |---|---|
//! | what happens on SIGTERM? | `running.rs`, `Running::stop` |
//! | who reads the sockets? | `serve/` |
//! | what happens to a request? | `http/` |
//! | which key sets what? | `config/` |
//! | what does the admin listener answer? | `admin/` |
//! | what if a background task fails? | `supervisor/` |

mod admin;
mod app;
mod bound;
pub mod config;
mod control;
mod descriptors;
mod error;
mod health;
mod http;
mod lifecycle;
mod metrics;
mod pollers;
mod reload;
mod report;
mod running;
mod serve;
mod service;
mod signals;
mod simple;
mod supervisor;
mod tasks;
pub mod testing;

pub use app::{App, init};
pub use bound::Bound;
pub use config::Config;
pub use error::{EX_CONFIG, EX_SOFTWARE, EX_TEMPFAIL, EX_UNAVAILABLE, Error, Result};
pub use lifecycle::Phase;
pub use mainspring_daemon as daemon;
pub use report::StopReport;
pub use service::Service;
pub use simple::SimpleServer;
pub use supervisor::Policy;

/// Runs one service until SIGTERM or SIGINT: the simplest daemon.
pub async fn run<S: Service>(config: Config, service: S) -> Result {
    SimpleServer::new(config).register(service).run().await
}
