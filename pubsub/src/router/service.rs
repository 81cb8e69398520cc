//! Handlers and services of all types, as one.

use std::fmt;
use std::task::{Context, Poll};

use mainspring_daemon::{BoxError, BoxFuture};
use tower::Service;

use super::slot::{ServiceSlot, Slot};
use crate::Request;

/// A route's handler as a layer sees it: a boxed `tower::Service<Request, Response = (), Error = BoxError>`.
pub struct RouteService(Box<dyn Boxed>);

/// A service whose type is forgotten.
pub(super) trait Erased: Send {
    /// A place for it to run in.
    fn slot(&self) -> Box<dyn Slot>;

    /// The service, for a layer to go around.
    fn into_service(self: Box<Self>) -> RouteService;
}

/// A service whose type is still known.
pub(super) struct Typed<V>(pub(super) V);

impl<V> Erased for Typed<V>
where
    V: Service<Request, Response = ()> + Clone + Send + 'static,
    V::Error: Into<BoxError>,
    V::Future: Send + 'static,
{
    fn slot(&self) -> Box<dyn Slot> {
        Box::new(ServiceSlot::new(self.0.clone()))
    }

    fn into_service(self: Box<Self>) -> RouteService {
        RouteService(Box::new(self.0))
    }
}

trait Boxed: Send {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    fn call(&mut self, request: Request) -> BoxFuture<Result<(), BoxError>>;
    fn clone_box(&self) -> Box<dyn Boxed>;
}

impl<V> Boxed for V
where
    V: Service<Request, Response = ()> + Clone + Send + 'static,
    V::Error: Into<BoxError>,
    V::Future: Send + 'static,
{
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::poll_ready(self, cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> BoxFuture<Result<(), BoxError>> {
        let future = Service::call(self, request);
        Box::pin(async move { future.await.map_err(Into::into) })
    }

    fn clone_box(&self) -> Box<dyn Boxed> {
        Box::new(self.clone())
    }
}

impl Service<Request> for RouteService {
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.call(request)
    }
}

impl Clone for RouteService {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl fmt::Debug for RouteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouteService")
    }
}
