//! A route from being added until it runs.

use std::sync::Arc;

use mainspring_daemon::{Chain, Context, Latch, Shutdown};

use super::check;
use super::gate::Gate;
use super::route::Route;
use super::service::Erased;
use super::settings::Settings;
use crate::batch::Batching;
use crate::{Error, Publisher, Subscriber};

/// A route whose state is still to come.
pub(super) struct Pending<S> {
    pub(super) name: &'static str,
    pub(super) from: Subscriber,
    pub(super) gate: Arc<Gate>,
    /// For a route that handles several messages at once.
    pub(super) batching: Option<Batching>,
    /// Whether the handler asks for an outbox.
    pub(super) outbox: bool,
    pub(super) service: Box<dyn FnOnce(S) -> Box<dyn Erased> + Send>,
}

/// A route that holds readiness back and does not receive yet.
pub(super) struct Starting {
    route: Pending<()>,
    settings: Settings,
    latch: Latch,
}

impl<S> Pending<S> {
    /// The same route with another service, made from this one's.
    pub(super) fn map<S2>(
        self,
        change: impl FnOnce(Box<dyn FnOnce(S) -> Box<dyn Erased> + Send>) -> Box<dyn FnOnce(S2) -> Box<dyn Erased> + Send>,
    ) -> Pending<S2> {
        let Self { name, from, gate, batching, outbox, service } = self;
        Pending { name, from, gate, batching, outbox, service: change(service) }
    }
}

impl Starting {
    pub(super) fn new(route: Pending<()>, settings: &Settings, cx: &Context) -> Self {
        let latch = cx.hold_ready(format!("route `{}` does not receive yet", route.name));
        Self { route, settings: settings.clone(), latch }
    }

    /// Sees to a place for dead letters.
    pub(super) async fn open(self, cx: &Context, stop: Shutdown) -> Result<Route, Error> {
        let Self { route, mut settings, latch } = self;
        if settings.dead_letter.is_none() && !route.from.capabilities().reject {
            let (source, place) = (check::at(route.from.endpoint()), route.from.dead_letters());
            settings.dead_letter = tokio::select! {
                biased;
                place = place => Some(dead_letters(route.name, &source, place)?),
                // While stopping nothing becomes a dead letter, and the route has to end in order all the same.
                () = cx.shutdown().requested() => None,
            };
        }
        Ok(Route::new(route, &settings, cx, stop, latch))
    }
}

/// The place where the broker's dead letters go when nobody has named one.
fn dead_letters(route: &str, source: &str, place: Result<Option<Publisher>, Error>) -> Result<Publisher, Error> {
    let hint = "give the router a publisher for them with `Router::dead_letter`";
    match place {
        Ok(Some(place)) => Ok(place),
        Ok(None) => {
            let what = format!(
                "route `{route}`: {source} keeps no dead letters, so what is given up would come again for ever"
            );
            Err(check::fault("Router::dead_letter", what, hint))
        }
        Err(cause) => {
            let what =
                format!("route `{route}`: no place for the dead letters of {source}: {}; or {hint}", Chain(&cause));
            Err(Error::new(cause.kind(), "route", what).with_backend(cause.backend()).with_source(cause))
        }
    }
}
