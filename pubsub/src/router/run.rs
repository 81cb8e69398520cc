//! A router at work: its routes, those that are added, and how they end.

use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mainspring_daemon::{Context, Shutdown, Trigger};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::handle::RouterHandle;
use super::pending::Starting;
use super::route::{LEAST_CLOSE, Route};
use crate::brokers::Brokers;
use crate::{Error, Publisher};

/// What it takes to have a route run beside the others.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) cx: Context,
    pub(super) stop: Shutdown,
    /// Takes one batch of routes at a time.
    pub(super) newcomers: mpsc::Sender<Vec<Route>>,
}

/// Routes that run until they are told to stop, or have nothing left to do.
pub(super) struct Run {
    /// However the run ends, its routes are gone then.
    pub(super) handle: Gone,
    pub(super) cx: Context,
    /// Stops the routes. Dropping it stops them at once, so it lives until they are done, or until its owner is gone.
    pub(super) trigger: Option<Trigger>,
    pub(super) stop: Shutdown,
    pub(super) newcomers: mpsc::Receiver<Vec<Route>>,
    /// How long the others may take when one has failed.
    pub(super) grace: Duration,
}

impl Run {
    /// Runs `routes`, and those that come.
    pub(super) async fn run(mut self, routes: Vec<Starting>) -> Result<(), Error> {
        let shutdown = self.cx.shutdown().clone();
        let opening = routes.into_iter().map(|route| route.open(&self.cx, self.stop.clone()));
        let routes = try_join_all(opening).await?;
        routes.iter().for_each(|route| self.handle.0.show(route));
        let mut running: FuturesUnordered<_> = routes.into_iter().map(Route::run).collect();
        let (mut passed_on, mut last_told) = (false, false);
        let mut result = Ok(());
        loop {
            tokio::select! {
                biased;
                () = shutdown.requested(), if !passed_on => {
                    passed_on = true;
                    match (shutdown.deadline(), &self.trigger) {
                        (Some(deadline), Some(trigger)) => trigger.request(deadline),
                        _ => self.trigger = None,
                    }
                }
                // Not before the request to stop was passed on, or it would be news about nothing, and lost.
                () = shutdown.requests_finished(), if passed_on && !last_told => {
                    last_told = true;
                    if let Some(trigger) = &self.trigger {
                        trigger.requests_finished();
                    }
                }
                Some(routes) = self.newcomers.recv() => running.extend(routes.into_iter().map(Route::run)),
                ended = running.next() => match ended {
                    None => {
                        // Who is about to add a route now learns that it is too late, and who just has is not forgotten.
                        self.newcomers.close();
                        match self.newcomers.try_recv() {
                            Ok(routes) => running.extend(routes.into_iter().map(Route::run)),
                            Err(_) => return result,
                        }
                    }
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        // The others stop in order; the first error is the answer.
                        if let Some(trigger) = &self.trigger {
                            trigger.request(Instant::now() + self.grace);
                        }
                        result = result.and(Err(error));
                    }
                },
            }
        }
    }
}

/// Says so when the router is gone.
pub(super) struct Gone(pub(super) RouterHandle);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Has `to` flushed when everything has drained.
pub(super) fn flush_at_end(cx: &Context, to: Publisher) {
    let shutdown = cx.shutdown().clone();
    cx.on_flush(move || async move { to.flush(flush_deadline(&shutdown)).await.map_err(Into::into) });
}

/// Has every publisher of `brokers` flushed when everything has drained.
pub(super) fn flush_all_at_end(cx: &Context, brokers: Brokers) {
    let shutdown = cx.shutdown().clone();
    cx.on_flush(move || async move { brokers.flush(flush_deadline(&shutdown)).await.map_err(Into::into) });
}

/// By when a flush that runs after everything else has to be done.
fn flush_deadline(shutdown: &Shutdown) -> Instant {
    let least = Instant::now() + LEAST_CLOSE;
    shutdown.deadline().map_or(least, |deadline| deadline.max(least))
}
