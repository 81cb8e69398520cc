//! Answers that nobody may keep.

use axum::response::Response;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, EXPIRES, PRAGMA};
use tower::Layer;
use tower::util::MapResponse;

/// A layer that forbids browsers and proxies to keep answers: `Cache-Control: no-cache, no-store,
/// must-revalidate`, and the same for HTTP/1.0.
///
/// An answer that says `Cache-Control` itself is left alone.
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "a layer does nothing until a router has it"]
pub struct NoCache;

impl<S> Layer<S> for NoCache {
    type Service = MapResponse<S, fn(Response) -> Response>;

    fn layer(&self, inner: S) -> Self::Service {
        MapResponse::new(inner, forbid)
    }
}

fn forbid(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        headers.insert(EXPIRES, HeaderValue::from_static("0"));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::{HeaderMap, Request};
    use tower::ServiceExt;

    use super::*;

    async fn headers(path: &str) -> HeaderMap {
        let router = Router::new()
            .route("/plain", get(async || "x"))
            .route("/own", get(async || ([(CACHE_CONTROL, "max-age=60")], "x")))
            .layer(NoCache);
        let request = Request::get(path).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().into_parts().0.headers
    }

    #[tokio::test]
    async fn answers_are_not_to_be_kept() {
        let headers = headers("/plain").await;
        assert_eq!(headers[CACHE_CONTROL], "no-cache, no-store, must-revalidate");
        assert_eq!((&headers[PRAGMA], &headers[EXPIRES]), (&"no-cache".parse().unwrap(), &"0".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_handlers_own_word_stands() {
        let headers = headers("/own").await;
        assert_eq!(headers[CACHE_CONTROL], "max-age=60");
        assert!(!headers.contains_key(PRAGMA));
    }
}
