//! The id that a chain of messages shares.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use mainspring_observe::correlation::{self, Correlation, Scoped};
use tower::{Layer, Service};

use crate::Request;

const ATTRIBUTE: &str = "correlation-id";

/// The longest id that is taken over, in bytes: it goes into every log line.
const LONGEST: usize = 128;

/// Has everything that is logged while a message is handled carry its correlation id as `request_id`: the attribute
/// `correlation-id` if the message has one, else the message's own id, so that a chain starts with its first message.
///
/// Handlers that publish pass it on with [`CorrelationId::current`]. An attribute over 128 bytes, or with anything in
/// it but visible ASCII, is not taken for an id.
#[derive(Clone, Debug)]
pub struct CorrelationId {
    attribute: Arc<str>,
}

/// What [`CorrelationId`] makes of a service.
#[derive(Clone, Debug)]
pub struct CorrelationService<V> {
    inner: V,
    attribute: Arc<str>,
}

impl CorrelationId {
    /// Reads the attribute `correlation-id`.
    pub fn new() -> Self {
        Self::from_attribute(ATTRIBUTE)
    }

    /// Reads another attribute.
    pub fn from_attribute(name: &str) -> Self {
        Self { attribute: name.into() }
    }

    /// The id of what is being handled or served right now, for attributes of what is published because of it. `None`
    /// outside of any.
    pub fn current() -> Option<String> {
        let id = correlation::current().request_id?;
        String::from_utf8(id.to_vec()).ok()
    }
}

impl Default for CorrelationId {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Layer<V> for CorrelationId {
    type Service = CorrelationService<V>;

    fn layer(&self, inner: V) -> Self::Service {
        CorrelationService { inner, attribute: Arc::clone(&self.attribute) }
    }
}

impl<V: Service<Request>> Service<Request> for CorrelationService<V> {
    type Response = V::Response;
    type Error = V::Error;
    type Future = Scoped<V::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), V::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let message = request.message();
        let given = message.attributes.get(&*self.attribute).filter(|id| is_id(id));
        let id = given.cloned().unwrap_or_else(|| message.id.to_string());
        let scope = Correlation { request_id: Some(Bytes::from(id)), ..correlation::current() };
        let future = correlation::with(&scope, || self.inner.call(request));
        correlation::scope(scope, future)
    }
}

fn is_id(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
