//! Everything that the requests of one listener share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainspring_daemon::Shutdown;

use super::Routes;
use super::access::AccessLog;
use crate::metrics::ServerMetrics;

/// The router, what is known of its routes, the limits, and the counts of a shutdown.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(super) router: axum::Router,
    pub(super) routes: Routes,
    pub(super) settings: Settings,
    pub(super) access: Option<AccessLog>,
    /// When event streams end.
    pub(super) draining: Shutdown,
    metrics: Arc<ServerMetrics>,
    in_flight: AtomicI64,
    leaving: AtomicBool,
    aborting: AtomicBool,
    finished: AtomicU64,
    aborted: Mutex<Vec<Aborted>>,
    aborted_count: AtomicU64,
}

/// The limits of a request.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) max_in_flight: i64,
    pub(crate) max_body: u64,
    pub(crate) body_timeout: Duration,
}

/// A request that was cut off at the deadline.
#[derive(Clone, Debug)]
pub(crate) struct Aborted {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) route: Arc<str>,
    pub(crate) age: Duration,
}

/// More are counted, but not named.
const NAMED: usize = 100;

impl Dispatch {
    pub(crate) fn new(
        router: axum::Router,
        routes: Routes,
        settings: Settings,
        access: Option<AccessLog>,
        metrics: Arc<ServerMetrics>,
        draining: Shutdown,
    ) -> Arc<Self> {
        Arc::new(Self {
            router,
            routes,
            settings,
            access,
            draining,
            metrics,
            in_flight: AtomicI64::new(0),
            leaving: AtomicBool::new(false),
            aborting: AtomicBool::new(false),
            finished: AtomicU64::new(0),
            aborted: Mutex::default(),
            aborted_count: AtomicU64::new(0),
        })
    }

    pub(crate) fn metrics(&self) -> &ServerMetrics {
        &self.metrics
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// From now on HTTP/1 clients are told to connect again, elsewhere.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// From now on a request that is dropped was cut off by us, not given up by its client.
    pub(crate) fn abort(&self) {
        self.aborting.store(true, Ordering::Relaxed);
    }

    /// Requests that were answered to their end.
    pub(crate) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Requests that were cut off: all of them counted, the first hundred named.
    pub(crate) fn aborted(&self) -> (u64, Vec<Aborted>) {
        let named = self.aborted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.aborted_count.load(Ordering::Relaxed), named)
    }

    /// How many requests are in progress.
    pub(crate) fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request in. Whether there was room for it.
    pub(super) fn enter(&self) -> bool {
        self.metrics.active.inc();
        self.in_flight.fetch_add(1, Ordering::Relaxed) < self.settings.max_in_flight
    }

    /// Counts a request out. Answers whether it is us who cut it off, if it did not `finish`.
    pub(super) fn exit(&self, finished: bool, aborted: impl FnOnce() -> Aborted) -> bool {
        self.metrics.active.dec();
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if finished {
            self.finished.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let cut_off = self.aborting.load(Ordering::Relaxed);
        if cut_off {
            self.aborted_count.fetch_add(1, Ordering::Relaxed);
            let mut named = self.aborted.lock().unwrap_or_else(PoisonError::into_inner);
            if named.len() < NAMED {
                named.push(aborted());
            }
        }
        cut_off
    }
}
