//! From subscribers to handlers, and back to settlements.
//!
//! | question | file |
//! |---|---|
//! | what can be set, and what is refused before anything is received? | `settings.rs`, `check.rs` |
//! | how does a route begin? | `pending.rs`: named, then starting, then `Route::new` in `route.rs` |
//! | how do routes run beside each other, and how do they end? | `run.rs` for all of them, `route.rs` for one |
//! | when is a message received, and when not? | `pull.rs`; `room.rs` says how much may be held |
//! | in what order are messages handled? | `backlog.rs`: what waits; `board.rs`: who gets what, and all that is held |
//! | who handles it, and when is it acked? | `lane.rs`: one message at a time, from the handler's call to its settling |
//! | what comes of settling it, and when is that known? | `answers.rs` |
//! | what becomes of one whose handler failed? | `failing.rs`, and `dead_letter.rs` for what is published then |
//! | where do a message's lease and attempt stand? | `job.rs`: the message; `call.rs`: one attempt at it |
//! | where does the handler's future run, and who catches its panic? | `slot.rs`; `service.rs` makes handlers alike |
//! | which task polls which lane? | `worker.rs`: a task and its lanes; `wake.rs` tells it which |
//! | how is a route paused, drained, added? | `handle.rs`; `gate.rs` is its switch, `route_state.rs` the states |
//! | what does `/debug/pubsub` show? | `page/`, from what `ledger.rs` copies off the board |
//!
//! A route has one puller, one board, and as many lanes as it has concurrency; `shared.rs` is what they have in common.

mod answers;
mod backlog;
mod board;
mod call;
mod check;
mod dead_letter;
mod failing;
mod gate;
mod handle;
mod job;
mod lane;
mod ledger;
mod page;
mod pending;
mod pull;
mod room;
mod route;
mod route_state;
mod run;
mod service;
mod settings;
mod shared;
mod slot;
mod wake;
mod worker;

use std::fmt;
use std::sync::Arc;

use mainspring_config::ByteSize;
use mainspring_daemon::{BoxError, Context, Shutdown};
use tokio::sync::mpsc;
use tower::{Layer, Service};

#[cfg(doc)]
use crate::Outbox;
use crate::batch::{BatchHandler, BatchService, Batching};
use crate::extract::FromMessage as _;
use crate::handler::{Handler, HandlerService};
use crate::{Error, Policy, Publisher, Request, Subscriber};

pub use dead_letter::DeadLetter;
use dead_letter::Watcher;
pub use handle::RouterHandle;
use pending::{Pending, Starting};
pub use route_state::RouteState;
use run::{Gone, Live, Run};
pub use service::RouteService;
use service::{Erased, Typed};
use settings::Settings;

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
/// failures use up no attempt and make no dead letters. Dropping the router's future gives everything back, too. A
/// subscriber that then does not close as it should, so that what was acked last may come again, is named in the stop report.
pub struct Router<S = ()> {
    routes: Vec<Pending<S>>,
    settings: Settings,
    handle: RouterHandle,
}

impl<S: 'static> Router<S> {
    /// A router without routes.
    pub fn new() -> Self {
        Self { routes: Vec::new(), settings: Settings::default(), handle: RouterHandle::default() }
    }

    /// Handles what comes `from` a subscriber with a function: see [`Handler`]. `name` is what logs, metrics and the
    /// debug page call the route.
    pub fn route<H, Args>(self, name: &'static str, from: Subscriber, handler: H) -> Self
    where
        H: Handler<Args, S>,
        Args: 'static,
        S: Clone + Send,
    {
        self.push(name, from, None, H::OUTBOX, move |state| Box::new(Typed(HandlerService::new(handler, state))))
    }

    /// Handles what comes `from` a subscriber with a tower service. An error of the service means retry, unless it is
    /// a [`HandlerError`](crate::HandlerError) that says otherwise.
    pub fn route_service<V>(self, name: &'static str, from: Subscriber, service: V) -> Self
    where
        V: Service<Request, Response = ()> + Clone + Send + 'static,
        V::Error: Into<BoxError>,
        V::Future: Send + 'static,
    {
        self.push(name, from, None, false, move |_state| Box::new(Typed(service)))
    }

    /// Handles what comes `from` a subscriber several messages at a time, with a function that answers for each: see
    /// [`BatchHandler`].
    ///
    /// A batch begins when it is full, or when [`Batching::linger`] has passed since its first message came. It has at
    /// most one message of each key: an outcome of its own for each message and order within a key cannot be had
    /// otherwise. A message that cannot be read never gets into one. What fails is tried again in a later batch, or
    /// becomes a dead letter, as it would on its own; so do all messages of a batch that panics or takes longer than
    /// [`Policy::timeout`], which begins with the batch.
    ///
    /// [`concurrency`](Self::concurrency) counts batches here. Layers see the messages one by one. While the router
    /// stops, batches that have begun may finish, and what waits for its batch goes back to the broker.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainspring_pubsub::{Batching, Failure, Json, Router};
    /// # use mainspring_pubsub::{Brokers, BrokersConfig};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order { id: String }
    ///
    /// async fn index(orders: Vec<Json<Order>>) -> Vec<Result<(), Failure>> {
    ///     // One request for all of them; its answer has a line for each.
    ///     orders.iter().map(|Json(order)| if order.id.is_empty() { Err(Failure::reject("no id")) } else { Ok(()) }).collect()
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), mainspring_pubsub::Error> {
    /// # let inbox = Brokers::new(&BrokersConfig::default())?.subscriber("memory://orders?group=index").await?;
    /// let batching = Batching::up_to(500).linger(Duration::from_millis(50));
    /// let router: Router = Router::new().route_batch("index", inbox, batching, index).concurrency(2);
    /// # drop(router);
    /// # Ok(()) }
    /// ```
    pub fn route_batch<H, Args>(self, name: &'static str, from: Subscriber, batching: Batching, handler: H) -> Self
    where
        H: BatchHandler<Args, S>,
        Args: 'static,
        S: Clone + Send,
    {
        let up_to = batching.clone();
        self.push(name, from, Some(batching), H::Item::OUTBOX, move |state| {
            Box::new(Typed(BatchService::new(handler, state, up_to)))
        })
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
            let layer = layer.clone();
            route.map(|inner| {
                Box::new(move |state| -> Box<dyn Erased> { Box::new(Typed(layer.layer(inner(state).into_service()))) })
            })
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
            let state = state.clone();
            route.map(|service| Box::new(move |_: S2| service(state)))
        };
        let routes = self.routes.into_iter().map(settle).collect();
        Router { routes, settings: self.settings, handle: self.handle }
    }

    /// How many messages of a route are handled at once, or how many batches of one that handles those. Default 16.
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
    /// the attributes `dead-letter-reason`, `-attempts`, `-position`, `-source` and `-route`, as far as the limits of the
    /// broker leave room for those. A message is only taken from its source once its dead letter is confirmed; until
    /// then it is held, keeps back those of its key, and is tried again after [`Backoff::max`](crate::Backoff::max):
    /// each time is an error in the log, and counts as `pubsub_outcome_total{outcome="stuck"}`.
    ///
    /// Without one it is up to the broker. One that keeps dead letters itself is told to reject the message:
    /// `memory://orders` keeps it in `memory://orders.dead`, with the same attributes. For one that does not, the router
    /// opens the place that goes by default with what it receives from, when it starts: `kafka://orders.dead` for
    /// `kafka://orders`. Where there is none, the router refuses to start, because what is given up would come again for
    /// ever.
    pub fn dead_letter(mut self, to: Publisher) -> Self {
        self.settings.dead_letter = Some(to);
        self
    }

    /// Calls `watcher` for each dead letter, after it is safe: with [`exactly_once`](Self::exactly_once), when it is
    /// committed. It runs on a task of the router's and must not block.
    pub fn on_dead_letter(mut self, watcher: impl Fn(&DeadLetter<'_>) + Send + Sync + 'static) -> Self {
        self.settings.watcher = Some(Watcher(Arc::new(watcher)));
        self
    }

    /// Has each message's effects on the broker happen exactly once: what its handler leaves in the [`Outbox`] is published
    /// in one transaction with the message's ack, and so is its dead letter. Whoever reads only what is committed, as
    /// Kafka's consumers do unless told otherwise, sees each output once, however often the message was handled.
    ///
    /// That is all it covers. Handlers still run more than once for a message, after failures and when another instance
    /// takes over; what they do elsewhere, in a database or through a [`Publisher`] of their own, is done each time.
    /// Outputs become visible a little later, when the transaction is committed: messages share transactions, and on Kafka
    /// those of a partition are committed in order, so that one that is retried for a minute holds back for as long what
    /// comes of the later ones. When stopping, what was handled is committed within the time that is left; what is not
    /// comes again elsewhere.
    ///
    /// [`run`](Self::run) refuses routes whose broker has no [`transactions`](crate::driver::Capabilities::transactions),
    /// and a publisher of dead letters on another broker.
    pub fn exactly_once(mut self) -> Self {
        self.settings.exactly_once = true;
        self
    }

    /// Pauses, resumes, drains, adds and removes routes while the router runs: to be kept before
    /// [`run`](Router::run) takes the router.
    pub fn handle(&self) -> RouterHandle {
        self.handle.clone()
    }

    fn push(
        mut self,
        name: &'static str,
        from: Subscriber,
        batching: Option<Batching>,
        outbox: bool,
        service: impl FnOnce(S) -> Box<dyn Erased> + Send + 'static,
    ) -> Self {
        let gate = self.handle.announce(name);
        self.routes.push(Pending { name, from, gate, batching, outbox, service: Box::new(service) });
        self
    }
}

impl Router<()> {
    /// Runs until the daemon is told to stop, or until every subscriber is closed.
    ///
    /// Holds readiness back from this call on, until each route has been seen to receive without error (on Kafka, until
    /// its group has let it in), and whenever one cannot. A route that was paused or has ended does not hold it back, but
    /// `/readyz?verbose` and the gauge `pubsub_route_state` say so. Serves `/debug/pubsub`, which shows what is in flight
    /// and takes what [`RouterHandle`] does by POST. Has the publishers of the brokers that the subscribers come from, and
    /// the dead letters' own, flushed after everything has drained. Errors that may pass are waited out, with growing
    /// pauses; one that will not stops all routes in order and is the answer.
    pub fn run(self, cx: Context) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let valid = self.check();
        let (handle, grace) = (self.handle.clone(), self.settings.policy.timeout);
        let (trigger, stop) = Shutdown::channel();
        let (sender, newcomers) = mpsc::channel(1);
        handle.begin(Live { cx: cx.clone(), stop: stop.clone(), newcomers: sender });
        page::serve(&cx, handle.clone());
        handle.tell_readiness(&cx);
        let routes = self.starting(&cx, &handle);
        let run = Run { handle: Gone(handle), cx, trigger: Some(trigger), stop, newcomers, grace };
        async move {
            valid?;
            run.run(routes).await
        }
    }

    /// Takes the router apart into routes that hold readiness back, with `handle` to answer for them.
    fn starting(self, cx: &Context, handle: &RouterHandle) -> Vec<Starting> {
        if let Some(to) = &self.settings.dead_letter {
            run::flush_at_end(cx, to.clone());
        }
        for brokers in self.routes.iter().filter_map(|route| route.from.brokers()) {
            handle.flush_at_end(cx, brokers);
        }
        let Self { routes, settings, .. } = self;
        routes.into_iter().map(|route| Starting::new(route, &settings, cx)).collect()
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.routes.iter().map(|route| route.name)
    }

    fn check(&self) -> Result<(), Error> {
        let fault = |key: &str, what: String, hint: &str| Err(check::fault(key, what, hint));
        let names: Vec<_> = self.names().collect();
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return fault("Router::route", format!("two routes are called `{}`", twice.1), "give each its own name");
        }
        if names.is_empty() {
            return fault("Router::route", "the router has no route".to_owned(), "add one, or do not run the router");
        }
        check::limits(&self.settings)?;
        self.routes.iter().try_for_each(|route| check::route(route, &self.settings))
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
