//! What a user implements.

use std::sync::Arc;

use mainspring_daemon::Board;

/// A set of HTTP routes with the state behind them.
///
/// ```
/// use std::sync::Arc;
/// use axum::{Router, extract::State, routing::get};
/// use mainspring_server::Service;
///
/// struct Greeter { greeting: String }
///
/// impl Service for Greeter {
///     const NAME: &'static str = "greeter";
///     fn routes(self: Arc<Self>) -> Router {
///         Router::new().route("/hello", get(hello)).with_state(self)
///     }
/// }
///
/// async fn hello(State(greeter): State<Arc<Greeter>>) -> String {
///     greeter.greeting.clone()
/// }
/// ```
pub trait Service: Send + Sync + 'static {
    /// What the service is called in logs, health answers and, when it is the first one registered, as a process.
    const NAME: &'static str;

    /// Templates of routes that stream or poll for long, such as `"/events"`: their requests have no
    /// `request_timeout`. A template that [`routes`](Self::routes) does not have is an error at start. Event streams
    /// (`text/event-stream`) and WebSockets need not be named.
    const UNTIMED: &'static [&'static str] = &[];

    /// The routes. End with `.with_state(…)`: axum prepares handlers then, and not for every request.
    fn routes(self: Arc<Self>) -> axum::Router;

    /// Puts up dependency checks, debug pages and flushes.
    fn setup(self: &Arc<Self>, board: &Board) {
        let _ = board;
    }
}
