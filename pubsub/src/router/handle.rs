//! Routes, paused and resumed while they run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use super::gate::Gate;
use crate::{Error, ErrorKind};

/// Pauses, resumes and drains the routes of one [`Router`](crate::Router), before and while it runs.
///
/// It comes from [`Router::handle`](crate::Router::handle). Cheap to clone; clones speak of the same routes. It keeps
/// nothing alive: once the router is gone, its routes are [`Ended`](RouteState::Ended).
///
/// The same is done by `POST /debug/pubsub?route=<name>&do=pause`, or `resume`, or `drain`, to the admin listener.
#[derive(Clone, Default)]
pub struct RouterHandle {
    routes: Arc<Mutex<Vec<Named>>>,
}

struct Named {
    name: &'static str,
    gate: Arc<Gate>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteState {
    /// It pulls and handles, or will when its router runs.
    Running,
    /// It neither pulls nor begins a handler, until it is resumed.
    Paused,
    /// It finishes what handlers have begun, for good.
    Draining,
    /// It has closed its subscriber, or its router is gone.
    Ended,
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

    /// What a route does; `None` when there is no such route.
    pub fn state(&self, route: &str) -> Option<RouteState> {
        self.lock().iter().find(|known| known.name == route).map(|known| known.gate.state())
    }

    /// All routes, in the order in which they were added.
    pub fn routes(&self) -> Vec<(&'static str, RouteState)> {
        self.lock().iter().map(|known| (known.name, known.gate.state())).collect()
    }

    /// Adds a route.
    pub(super) fn add(&self, name: &'static str) -> Arc<Gate> {
        let gate = Arc::new(Gate::new());
        self.lock().push(Named { name, gate: Arc::clone(&gate) });
        gate
    }

    fn turn(&self, route: &str, to: RouteState) -> Result<(), Error> {
        let known = self.lock();
        let Some(gate) = known.iter().find(|known| known.name == route).map(|known| Arc::clone(&known.gate)) else {
            let names: Vec<_> = known.iter().map(|known| format!("`{}`", known.name)).collect();
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

    fn lock(&self) -> MutexGuard<'_, Vec<Named>> {
        // Nothing of others runs under the lock, so a poisoned one is still whole.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RouteState {
    /// What has to be done for a route to be so.
    fn verb(self) -> &'static str {
        match self {
            Self::Running => "resume",
            Self::Paused => "pause",
            Self::Draining | Self::Ended => "drain",
        }
    }
}

/// As it follows the route's name: `runs`, `is paused`, `drains`, `has ended`.
impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "runs",
            Self::Paused => "is paused",
            Self::Draining => "drains",
            Self::Ended => "has ended",
        })
    }
}

impl fmt::Debug for RouterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.routes()).finish()
    }
}
