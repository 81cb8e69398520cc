//! What a task shows on the admin listener.

use std::fmt;
use std::sync::Arc;

use crate::BoxFuture;

/// A page of the admin listener.
#[derive(Clone)]
pub struct Page {
    /// Where it is served, for example `/debug/pubsub`.
    pub path: String,
    /// What the index page calls it.
    pub title: String,
    pub(crate) render: Arc<dyn Fn(PageRequest) -> BoxFuture<PageResponse> + Send + Sync>,
}

/// What a [`Page`] is asked.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PageRequest {
    /// The HTTP method.
    pub method: String,
    /// The query string, without the question mark; empty when there is none.
    pub query: String,
    /// What the client wants to have: the header `Accept`; empty when there is none.
    pub accept: String,
    /// The request's body, at most 64 KiB.
    pub body: Vec<u8>,
}

/// What a [`Page`] answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PageResponse {
    /// The HTTP status code.
    pub status: u16,
    /// The media type of `body`.
    pub content_type: &'static str,
    /// The page.
    pub body: String,
}

impl Page {
    /// Renders the page.
    pub fn render(&self, request: PageRequest) -> impl Future<Output = PageResponse> + Send + 'static {
        (self.render)(request)
    }
}

impl PageRequest {
    /// A request as a test would make it.
    pub fn new(method: &str, query: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: method.to_owned(), query: query.to_owned(), accept: String::new(), body: body.into() }
    }

    /// Sets what the client wants to have.
    pub fn with_accept(mut self, accept: &str) -> Self {
        self.accept = accept.to_owned();
        self
    }
}

impl PageResponse {
    /// A page of plain text.
    pub fn text(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// A page of JSON, already rendered.
    pub fn json(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: "application/json", body: body.into() }
    }

    /// The same page with another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("path", &self.path).finish_non_exhaustive()
    }
}
