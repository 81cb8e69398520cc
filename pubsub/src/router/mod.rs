//! From subscribers to handlers, and back to settlements.

mod board;
mod check;
mod dead_letter;
mod gate;
mod handle;
mod job;
mod lane;
mod page;
mod pull;
mod service;
mod slot;
mod wake;
mod worker;

use std::fmt;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use mainspring_config::ByteSize;
use mainspring_daemon::{BoxError, Context, Shutdown};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::brokers::Brokers;
use crate::handler::{Handler, HandlerService};
use crate::{Error, Policy, Publisher, Request, Subscriber};

pub use dead_letter::DeadLetter;
use dead_letter::Watcher;
use gate::Gate;
pub use handle::{RouteState, RouterHandle};
use pull::Route;
pub use service::RouteService;
use service::{Erased, Typed};

/// Calls a handler for each message, and settles for it: acked when the handler returns `Ok`, otherwise tried again or
/// made a dead letter as the [`Policy`] says. A panic counts as a failure and stops nothing.
///
/// What is set here holds for every route, in whatever order it is set; routes that need other settings go into a
/// router, and a daemon, of their own. Only [`layer`](Self::layer) and [`with_state`](Self::with_state) look back, as
/// axum's do: they concern the routes that were added before.
///
/// # Order
/// Up to [`concurrency`](Self::concurrency) messages of a route are handled at once, and never two of the same key:
/// those are handled in the order in which they came, and one that is to be tried again holds back the later ones of
/// its key, and no others. Messages without a key are handled in any order.
///
/// # Stopping
/// When the daemon is told to stop, nothing more is pulled, messages that no handler has begun go back to the broker,
/// and handlers that run may finish. What still runs when the time is over is dropped and goes back. While stopping,
/// failures use up no attempt and make no dead letters. Dropping the router's future gives everything back, too.
pub struct Router<S = ()> {
    routes: Vec<Pending<S>>,
    settings: Settings,
    handle: RouterHandle,
}

/// A route whose state is still to come.
struct Pending<S> {
    name: &'static str,
    from: Subscriber,
    gate: Arc<Gate>,
    service: Box<dyn FnOnce(S) -> Box<dyn Erased> + Send>,
}

/// What holds for every route.
#[derive(Clone)]
struct Settings {
    concurrency: usize,
    prefetch: Option<usize>,
    max_bytes: usize,
    policy: Policy,
    dead_letter: Option<Publisher>,
    watcher: Option<Watcher>,
}

impl<S: 'static> Router<S> {
    /// A router without routes.
    pub fn new() -> Self {
        let settings = Settings {
            concurrency: 16,
            prefetch: None,
            max_bytes: ByteSize::mib(64).as_usize(),
            policy: Policy::default(),
            dead_letter: None,
            watcher: None,
        };
        Self { routes: Vec::new(), settings, handle: RouterHandle::default() }
    }

    /// Handles what comes `from` a subscriber with a function: see [`Handler`]. `name` is what logs, metrics and the
    /// debug page call the route.
    pub fn route<H, Args>(self, name: &'static str, from: Subscriber, handler: H) -> Self
    where
        H: Handler<Args, S>,
        Args: 'static,
        S: Clone + Send,
    {
        self.push(name, from, move |state| Box::new(Typed(HandlerService::new(handler, state))))
    }

    /// Handles what comes `from` a subscriber with a tower service. An error of the service means retry, unless it is
    /// a [`HandlerError`](crate::HandlerError) that says otherwise.
    pub fn route_service<V>(self, name: &'static str, from: Subscriber, service: V) -> Self
    where
        V: Service<Request, Response = ()> + Clone + Send + 'static,
        V::Error: Into<BoxError>,
        V::Future: Send + 'static,
    {
        self.push(name, from, move |_state| Box::new(Typed(service)))
    }

    /// Puts a tower layer around every route added so far; the last one added is the outermost.
    ///
    /// An error that a layer makes, such as a timeout's, means retry. Layers see a [`Request`] go in and `()` or an
    /// error come out; what was settled is not theirs to decide.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<RouteService> + Clone + Send + 'static,
        L::Service: Service<Request, Response = ()> + Clone + Send + 'static,
        <L::Service as Service<Request>>::Error: Into<BoxError>,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        let wrap = |route: Pending<S>| {
            let (inner, layer) = (route.service, layer.clone());
            let service =
                Box::new(move |state| -> Box<dyn Erased> { Box::new(Typed(layer.layer(inner(state).into_service()))) });
            Pending { name: route.name, from: route.from, gate: route.gate, service }
        };
        self.routes = self.routes.into_iter().map(wrap).collect();
        self
    }

    /// Gives the routes added so far the state that their handlers ask for as [`State`](crate::State).
    pub fn with_state<S2: 'static>(self, state: S) -> Router<S2>
    where
        S: Clone + Send,
    {
        let settle = |route: Pending<S>| {
            let (service, state) = (route.service, state.clone());
            let service = Box::new(move |_: S2| service(state));
            Pending { name: route.name, from: route.from, gate: route.gate, service }
        };
        let routes = self.routes.into_iter().map(settle).collect();
        Router { routes, settings: self.settings, handle: self.handle }
    }

    /// How many messages of a route are handled at once. Default 16.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.settings.concurrency = messages;
        self
    }

    /// How many messages of a route may be waiting for a free handler or for their retry. Default as many as are
    /// handled at once.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.settings.prefetch = Some(messages);
        self
    }

    /// How many bytes of messages a route may hold before it stops pulling; one message may go over it. Default 64 MiB.
    pub fn max_bytes(mut self, bytes: ByteSize) -> Self {
        self.settings.max_bytes = bytes.as_usize();
        self
    }

    /// What becomes of messages whose handlers fail.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Where dead letters are published, with their original id, key, attributes and body, and why they are there in
    /// the attributes `dead-letter-reason`, `-attempts`, `-position`, `-source` and `-route`. A message is only taken
    /// from its source once its dead letter is confirmed; until then it is tried again.
    ///
    /// Without one, dead letters are logged as errors and rejected, and it is up to the broker what becomes of them:
    /// `memory://orders` keeps them in `memory://orders.dead`.
    pub fn dead_letter(mut self, to: Publisher) -> Self {
        self.settings.dead_letter = Some(to);
        self
    }

    /// Calls `watcher` for each dead letter, after it is safe. It runs on the router's own task and must not block.
    pub fn on_dead_letter(mut self, watcher: impl Fn(&DeadLetter<'_>) + Send + Sync + 'static) -> Self {
        self.settings.watcher = Some(Watcher(Arc::new(watcher)));
        self
    }

    /// Pauses, resumes and drains the routes, those included that are added later: to be kept before
    /// [`run`](Router::run) takes the router.
    pub fn handle(&self) -> RouterHandle {
        self.handle.clone()
    }

    fn push(
        mut self,
        name: &'static str,
        from: Subscriber,
        service: impl FnOnce(S) -> Box<dyn Erased> + Send + 'static,
    ) -> Self {
        let gate = self.handle.add(name);
        self.routes.push(Pending { name, from, gate, service: Box::new(service) });
        self
    }
}

impl Router<()> {
    /// Runs until the daemon is told to stop, or until every subscriber is closed.
    ///
    /// Holds readiness back from this call on, until each route has been seen to receive without error, and whenever
    /// one cannot. Serves `/debug/pubsub`, which shows what is in flight and takes what [`RouterHandle`] does
    /// by POST. Has the publishers of the brokers that the subscribers come from, and the
    /// dead letters' own, flushed after everything has drained. Errors that may pass are waited out, with growing
    /// pauses; one that will not stops all routes in order and is the answer.
    pub fn run(self, cx: Context) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let valid = self.check();
        let (trigger, stop) = Shutdown::channel();
        let mut routes = Vec::new();
        for Pending { name, from, gate, service } in self.routes {
            flush_at_end(&cx, &routes, &from);
            routes.push(Route::new(name, from, service(()), &self.settings, &cx, stop.clone(), gate));
        }
        if let Some(to) = self.settings.dead_letter.clone() {
            let shutdown = cx.shutdown().clone();
            cx.on_flush(move || async move { to.flush(flush_deadline(&shutdown)).await.map_err(Into::into) });
        }
        page::serve(&cx, self.handle, routes.iter().map(Route::board));
        let grace = self.settings.policy.timeout;
        async move {
            valid?;
            let mut running: FuturesUnordered<_> = routes.into_iter().map(Route::run).collect();
            let shutdown = cx.shutdown().clone();
            // Dropping it stops the routes at once, so it lives until they are done, or until its owner is gone.
            let mut trigger = Some(trigger);
            let (mut passed_on, mut last_told) = (false, false);
            let mut result = Ok(());
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.requested(), if !passed_on => {
                        passed_on = true;
                        match (shutdown.deadline(), &trigger) {
                            (Some(deadline), Some(trigger)) => trigger.request(deadline),
                            _ => trigger = None,
                        }
                    }
                    // Not before the request to stop was passed on, or it would be news about nothing, and lost.
                    () = shutdown.requests_finished(), if passed_on && !last_told => {
                        last_told = true;
                        if let Some(trigger) = &trigger {
                            trigger.requests_finished();
                        }
                    }
                    ended = running.next() => match ended {
                        None => return result,
                        Some(Ok(())) => {}
                        Some(Err(error)) => {
                            // The others stop in order; the first error is the answer.
                            if let Some(trigger) = &trigger {
                                trigger.request(Instant::now() + grace);
                            }
                            result = result.and(Err(error));
                        }
                    },
                }
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        let fault = |key: &str, what: String, hint: &str| Err(check::fault(key, what, hint));
        let names: Vec<_> = self.routes.iter().map(|route| route.name).collect();
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return fault("Router::route", format!("two routes are called `{}`", twice.1), "give each its own name");
        }
        if names.is_empty() {
            return fault("Router::route", "the router has no route".to_owned(), "add one, or do not run the router");
        }
        check::limits(&self.settings)?;
        self.routes.iter().try_for_each(|route| check::route(route.name, &route.from, &self.settings))
    }
}

impl<S: 'static> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.routes.iter().map(|route| route.name).collect();
        f.debug_struct("Router").field("routes", &names).finish_non_exhaustive()
    }
}

/// By when a flush that runs after everything else has to be done.
fn flush_deadline(shutdown: &Shutdown) -> Instant {
    let least = Instant::now() + pull::LEAST_CLOSE;
    shutdown.deadline().map_or(least, |deadline| deadline.max(least))
}

/// Has the publishers of the brokers that `from` belongs to flushed, unless an earlier route sees to that.
fn flush_at_end(cx: &Context, earlier: &[Route], from: &Subscriber) {
    let Some(brokers) = from.brokers() else { return };
    if earlier.iter().any(|route| route.brokers().is_some_and(|known: &Brokers| known.same(brokers))) {
        return;
    }
    let (brokers, shutdown) = (brokers.clone(), cx.shutdown().clone());
    cx.on_flush(move || async move { brokers.flush(flush_deadline(&shutdown)).await.map_err(Into::into) });
}
