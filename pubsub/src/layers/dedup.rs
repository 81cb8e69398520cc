//! Messages that are handled once.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use mainspring_daemon::{BoxError, BoxFuture};
use tokio::sync::Notify;
use tower::{Layer, Service};
use tracing::{info, warn};

use super::seen::{Seen, SeenInMemory};
use crate::Request;

/// Skips messages that were handled before: they are acked, and the handler does not see them.
///
/// A message is known by its route and its id, or by what [`by`](Self::by) makes of it, and is remembered once its
/// handler has returned `Ok`. Two deliveries of one message at the same time are handled one after the other, so the
/// second is skipped if the first succeeds; in two processes, both may be handled. So this spares work; where handling
/// twice does harm, the handler's own transaction has to tell.
#[derive(Clone)]
pub struct Dedup {
    shared: Arc<Shared>,
}

/// What [`Dedup`] makes of a service.
#[derive(Clone, Debug)]
pub struct DedupService<V> {
    inner: V,
    shared: Arc<Shared>,
}

struct Shared {
    seen: Arc<dyn Seen>,
    by: Arc<dyn Fn(&Request) -> String + Send + Sync>,
    running: Mutex<HashSet<String>>,
    finished: Notify,
}

/// A key that is being handled; dropping it lets others at it.
struct Claim {
    shared: Arc<Shared>,
    key: String,
}

impl Dedup {
    /// Remembers in `seen`. [`SeenInMemory`] is the default.
    pub fn new(seen: impl Seen) -> Self {
        Self::make(Arc::new(seen), Arc::new(|request| request.message().id.to_string()))
    }

    /// Knows messages by this, instead of by their id: an attribute, a field of the body. The route is added to it.
    pub fn by(self, by: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        Self::make(Arc::clone(&self.shared.seen), Arc::new(by))
    }

    fn make(seen: Arc<dyn Seen>, by: Arc<dyn Fn(&Request) -> String + Send + Sync>) -> Self {
        Self { shared: Arc::new(Shared { seen, by, running: Mutex::default(), finished: Notify::new() }) }
    }
}

impl Default for Dedup {
    fn default() -> Self {
        Self::new(SeenInMemory::default())
    }
}

impl<V> Layer<V> for Dedup {
    type Service = DedupService<V>;

    fn layer(&self, inner: V) -> Self::Service {
        DedupService { inner, shared: Arc::clone(&self.shared) }
    }
}

impl<V> Service<Request> for DedupService<V>
where
    V: Service<Request, Response = ()> + Clone + Send + 'static,
    V::Error: Into<BoxError>,
    V::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let clone = self.inner.clone();
        // The one that is ready does the work; its clone is asked anew next time.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let key = format!("{}/{}", request.route(), (shared.by)(&request));
            let claim = Claim::take(shared, key).await;
            if claim.shared.seen.contains(&claim.key).await? {
                let (route, id) = (request.route(), &request.message().id);
                info!(route, message_id = %id, "message was handled before; skipped");
                return Ok(());
            }
            inner.call(request).await.map_err(Into::into)?;
            if let Err(error) = claim.shared.seen.insert(&claim.key).await {
                warn!(key = claim.key, error = %error, "message is handled but could not be remembered");
            }
            Ok(())
        })
    }
}

impl Claim {
    /// Waits until nobody else handles the same.
    async fn take(shared: Arc<Shared>, key: String) -> Self {
        loop {
            let mut finished = std::pin::pin!(shared.finished.notified());
            // Listen before looking, so that an end in between is not missed.
            finished.as_mut().enable();
            let is_free = shared.running.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
            if is_free {
                break;
            }
            finished.await;
        }
        Self { shared, key }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.shared.finished.notify_waiters();
    }
}

impl fmt::Debug for Dedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedup").field("seen", &self.shared.seen).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("seen", &self.seen).finish_non_exhaustive()
    }
}
