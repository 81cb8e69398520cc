//! Routes, paused and resumed, added and removed while they run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mainspring_daemon::{Check, Context};
use tracing::info;

use super::gate::Gate;
use super::route::Route;
use super::route_state::RouteState;
use super::run::{self, Live};
use super::shared::Shared;
use super::{Router, check};
use crate::brokers::Brokers;
use crate::driver::Endpoint;
use crate::metrics::StateGauges;
use crate::{Error, ErrorKind};

/// Pauses, resumes, drains, adds and removes the routes of one [`Router`](crate::Router).
///
/// It comes from [`Router::handle`](crate::Router::handle). Cheap to clone; clones speak of the same routes. It keeps
/// nothing alive: once the router is gone, its routes are [`Ended`](RouteState::Ended).
///
/// Pausing, resuming and draining are also done by `POST /debug/pubsub?route=<name>&do=pause`, or `resume`, or `drain`, to the admin listener.
#[derive(Clone, Default)]
pub struct RouterHandle {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    routes: Vec<Named>,
    /// While the router runs.
    live: Option<Live>,
    /// Whose publishers will be flushed at the end.
    flushed: Vec<Brokers>,
}

/// A route as the debug page knows it. It does not keep the route alive.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) gate: Arc<Gate>,
    /// What it receives from, once it runs.
    pub(super) source: Option<Arc<Endpoint>>,
    /// What it holds, while it runs.
    pub(super) view: Weak<Shared>,
}

impl RouterHandle {
    /// Stops pulling, and begins no handler, until [`resume`](Self::resume). The subscriber stays open and in its
    /// group. Handlers that run go on, and finish as they would; messages that are held and wait stay held, in order,
    /// and have their leases extended as far as the broker lets them be.
    ///
    /// A paused route does not hold readiness back. A stop ends it like any other, with one exception: a queue that is
    /// gone with the process is worked off, so for that a stop lifts the pause.
    ///
    /// Fails with [`ErrorKind::NotFound`] when there is no such route, and with [`ErrorKind::Closed`] when the route
    /// drains or has ended. Pausing twice is pausing once.
    pub fn pause(&self, route: &str) -> Result<(), Error> {
        self.turn(route, RouteState::Paused)
    }

    /// Ends a pause: what waits is handled, then more is pulled. Without a pause it changes nothing.
    ///
    /// Fails as [`pause`](Self::pause) does.
    pub fn resume(&self, route: &str) -> Result<(), Error> {
        self.turn(route, RouteState::Running)
    }

    /// Ends one route and leaves the others alone: nothing more is pulled, messages that no handler has begun go back
    /// to the broker, handlers that run may finish, within [`Policy::timeout`](crate::Policy::timeout), and the
    /// subscriber is closed. There is no way back. When all routes have ended, so has the router.
    ///
    /// Returns at once; [`state`](Self::state) says how far it is. Fails with [`ErrorKind::NotFound`] when there is no
    /// such route; draining twice is draining once.
    pub fn drain(&self, route: &str) -> Result<(), Error> {
        self.turn(route, RouteState::Draining)
    }

    /// Adds the routes of another router, with that router's settings and state, to the one that runs. They are run,
    /// watched, shown on the debug page and stopped as if they had been there from the start, and hold readiness back
    /// until they receive; an error of theirs that will not pass stops all routes.
    ///
    /// Returns when they have begun. Fails, and adds none of them, with [`ErrorKind::Config`] when one of them could not
    /// have run in a router of its own, or has the name of a route that has not ended, and names it; with
    /// [`ErrorKind::Closed`] when the router does not run: not yet, or no longer. Dropping the future adds nothing.
    ///
    /// ```
    /// # use mainspring_daemon::Context;
    /// # use mainspring_pubsub::{Brokers, BrokersConfig, Failure, Router, Text};
    /// # async fn ship(Text(_): Text) -> Result<(), Failure> { Ok(()) }
    /// # async fn audit(Text(_): Text) -> Result<(), Failure> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let brokers = Brokers::new(&BrokersConfig::default())?;
    /// # let (stop, cx) = Context::test("ship");
    /// let router = Router::new().route("ship", brokers.subscriber("memory://orders?group=ship").await?, ship);
    /// let handle = router.handle();
    /// let running = router.run(cx);
    /// # let mut tasks = tokio::task::JoinSet::new();
    /// # tasks.spawn(running);
    ///
    /// let inbox = brokers.subscriber("memory://orders?group=audit").await?;
    /// handle.add(Router::new().route("audit", inbox, audit).concurrency(4)).await?;
    /// // …
    /// handle.remove("audit").await?;
    /// # drop(stop);
    /// # tasks.join_next().await.unwrap()??;
    /// # Ok(()) }
    /// ```
    pub async fn add(&self, router: Router) -> Result<(), Error> {
        router.check()?;
        let not_running = || Error::new(ErrorKind::Closed, "add", "the router does not run: not yet, or no longer");
        let live = self.lock().live.clone().ok_or_else(not_running)?;
        router.names().try_for_each(|name| self.lock().expect_free(name))?;
        let mut routes = Vec::new();
        for route in router.starting(&live.cx, self) {
            routes.push(route.open(&live.cx, live.stop.clone()).await?);
        }
        let place = live.newcomers.reserve().await.map_err(|_| not_running())?;
        let mut state = self.lock();
        routes.iter().try_for_each(|route| state.expect_free(route.name()))?;
        for route in &routes {
            state.routes.retain(|known| known.name != route.name());
            state.routes.push(Named::new(route));
            info!(route = route.name(), "route added");
        }
        drop(state);
        place.send(routes);
        Ok(())
    }

    /// Ends one route as [`drain`](Self::drain) does, waits until it has ended, and forgets it: its name may be used
    /// again. When it was the last one, the router ends.
    ///
    /// Takes as long as handlers that run, at most [`Policy::timeout`](crate::Policy::timeout), and then the subscriber
    /// need to finish. Fails with [`ErrorKind::NotFound`] when there is no such route, and with [`ErrorKind::Closed`]
    /// when the router has never run. Dropping the future leaves the route draining.
    pub async fn remove(&self, route: &str) -> Result<(), Error> {
        self.drain(route)?;
        let gate = {
            let state = self.lock();
            let Some(gate) = state.find(route).map(|known| Arc::clone(&known.gate)) else { return Ok(()) };
            if state.live.is_none() && gate.state() != RouteState::Ended {
                let what = "the router does not run yet; the route will end as soon as it does";
                return Err(Error::new(ErrorKind::Closed, "remove", what));
            }
            gate
        };
        gate.ended().await;
        let mut state = self.lock();
        if let Some(at) = state.routes.iter().position(|known| Arc::ptr_eq(&known.gate, &gate)) {
            StateGauges::forget(state.routes.remove(at).name);
        }
        drop(state);
        info!(route, "route removed");
        Ok(())
    }

    /// What a route does; `None` when there is no such route.
    pub fn state(&self, route: &str) -> Option<RouteState> {
        self.lock().find(route).map(|known| known.gate.state())
    }

    /// All routes, in the order in which they were added.
    pub fn routes(&self) -> Vec<(&'static str, RouteState)> {
        self.lock().routes.iter().map(|known| (known.name, known.gate.state())).collect()
    }

    /// Notes a route that is to run.
    pub(super) fn announce(&self, name: &'static str) -> Arc<Gate> {
        let gate = Arc::new(Gate::new());
        self.lock().routes.push(Named { name, gate: Arc::clone(&gate), source: None, view: Weak::new() });
        gate
    }

    /// Has the debug page show a route that was announced.
    pub(super) fn show(&self, route: &Route) {
        if let Some(known) = self.lock().routes.iter_mut().find(|known| Arc::ptr_eq(&known.gate, route.gate())) {
            *known = Named::new(route);
        }
    }

    /// All routes, for the debug page.
    pub(super) fn named(&self) -> Vec<Named> {
        self.lock().routes.clone()
    }

    /// Has the publishers of `brokers` flushed when everything has drained, once for all routes.
    pub(super) fn flush_at_end(&self, cx: &Context, brokers: &Brokers) {
        let mut state = self.lock();
        if !state.flushed.iter().any(|known| known.same(brokers)) {
            state.flushed.push(brokers.clone());
            run::flush_all_at_end(cx, brokers.clone());
        }
    }

    /// Has `/readyz?verbose` name the routes that were paused, drained, or have ended. That is an operator's decision, or
    /// the router's own end to answer for, so it does not hold readiness back.
    pub(super) fn tell_readiness(&self, cx: &Context) {
        let handle = self.clone();
        cx.check(Check::new(format!("{} routes", cx.name())).optional(), move || {
            let said: Vec<_> = handle.routes().into_iter().filter(|(_, state)| *state != RouteState::Running).collect();
            let said: Vec<_> = said.into_iter().map(|(name, state)| format!("route `{name}` {state}")).collect();
            async move { if said.is_empty() { Ok(()) } else { Err(said.join(", ").into()) } }
        });
    }

    /// Says that the router runs: from now on routes can be added.
    pub(super) fn begin(&self, live: Live) {
        self.lock().live = Some(live);
    }

    /// Says that the router is gone, and so are its routes.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        (state.live, state.flushed) = (None, Vec::new());
        for known in &state.routes {
            known.gate.turn(RouteState::Ended);
        }
    }

    fn turn(&self, route: &str, to: RouteState) -> Result<(), Error> {
        let known = self.lock();
        let Some(gate) = known.find(route).map(|known| Arc::clone(&known.gate)) else {
            let names: Vec<_> = known.routes.iter().map(|known| format!("`{}`", known.name)).collect();
            let what = format!("there is no route `{route}`; there are: {}", names.join(", "));
            return Err(Error::new(ErrorKind::NotFound, to.verb(), what));
        };
        drop(known);
        let before = gate.state();
        let now = gate.turn(to);
        if now != to && to != RouteState::Draining {
            let what = format!("route `{route}` {now}, and that is for good; start the process anew to have it back");
            return Err(Error::new(ErrorKind::Closed, to.verb(), what));
        }
        if now != before {
            info!(route, state = %now, "told to {}", to.verb());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Named {
    /// A route that is about to run: from now on metrics tell of its state.
    fn new(route: &Route) -> Self {
        route.gate().measure(route.name());
        let (name, gate) = (route.name(), Arc::clone(route.gate()));
        Self { name, gate, source: Some(Arc::clone(&route.shared.source)), view: route.view() }
    }
}

impl State {
    fn find(&self, route: &str) -> Option<&Named> {
        self.routes.iter().find(|known| known.name == route)
    }

    /// A name is free again when its route has ended.
    fn expect_free(&self, route: &str) -> Result<(), Error> {
        match self.find(route) {
            Some(known) if known.gate.state() != RouteState::Ended => {
                let what = format!("there is a route `{route}` already, and it {}", known.gate.state());
                Err(check::fault("RouterHandle::add", what, "use another name, or remove that route first"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for RouterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.routes()).finish()
    }
}
