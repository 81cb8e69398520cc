//! How reading a request's body fails, and what the client is told.
//!
//! The server's request body yields [`TooLarge`] and [`TimedOut`] as its errors. Layers in between (axum,
//! `http-body-util`, the user's own) wrap them; [`problem`] looks through the wrapping.

use std::error::Error;
use std::time::Duration;

use axum::RequestExt;
use axum::extract::Request;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError};

use crate::Problem;

/// The request body has more bytes than the server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request body is larger than {limit} bytes")]
pub struct TooLarge {
    /// The largest body accepted, in bytes.
    pub limit: u64,
}

/// The request body did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request body did not arrive within {after:?}")]
pub struct TimedOut {
    /// The time the body was given.
    pub after: Duration,
}

/// Reads the whole body of `request`.
///
/// Fails with 413 naming the limit, 408 naming the time allowed, or 400 when the client went away or broke
/// its framing. The limit is the server's; a route's own `axum::extract::DefaultBodyLimit` is kept as well,
/// and is 2 MiB where nothing was set. Cancel-safe in that dropping the future drops the request.
pub async fn bytes(request: Request) -> Result<Bytes, Problem> {
    let body = request.into_limited_body();
    // axum's own limit reports no number, but while it is in force the size hint never exceeds it.
    let limit = body.size_hint().upper();
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(problem(&error).unwrap_or_else(|| match limit {
            Some(limit) if find::<LengthLimitError>(&error).is_some() => Problem::payload_too_large(limit),
            _ => {
                tracing::debug!(%error, "request body could not be read");
                Problem::bad_request("the request body ended early or was framed wrongly")
            }
        })),
    }
}

/// The problem that a failed read of the body stands for: 413 for [`TooLarge`], 408 for [`TimedOut`],
/// wherever in the error's chain of sources; `None` for every other error.
pub fn problem(error: &(dyn Error + 'static)) -> Option<Problem> {
    if let Some(TooLarge { limit }) = find(error) {
        return Some(Problem::payload_too_large(*limit));
    }
    if let Some(TimedOut { after }) = find(error) {
        let detail = format!("the request body did not arrive within {after:?}");
        return Some(Problem::request_timeout(*after).detail(detail));
    }
    None
}

/// Refuses, with 415 and `Accept-Encoding: identity`, a body that says it is compressed: it would be read as it is. A
/// layer that decompresses takes the header away with the compression.
pub(crate) fn expect_identity(headers: &HeaderMap) -> Result<(), Problem> {
    let values = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let mut codings = values.flat_map(|value| value.split(',')).map(str::trim).filter(|coding| !coding.is_empty());
    if codings.all(|coding| coding.eq_ignore_ascii_case("identity")) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        .detail("the body must not be compressed: the only content encoding that is read here is identity")
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| behind(error)).find_map(|error| error.downcast_ref())
}

/// The error behind `error`. An `io::Error`, which stream adapters like to wrap things in, gives as its
/// source not the error it was made of but that error's source.
fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::DefaultBodyLimit;
    use http_body_util::StreamBody;

    use super::*;

    fn request(frames: Vec<Result<&'static str, crate::BoxError>>) -> Request {
        let frames = frames.into_iter().map(|frame| frame.map(|data| http_body::Frame::data(Bytes::from(data))));
        Request::new(Body::new(StreamBody::new(futures_util::stream::iter(frames))))
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        assert_eq!(bytes(request(vec![Ok("ab"), Ok(""), Ok("c")])).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn the_servers_limit_is_named() {
        let problem = bytes(request(vec![Ok("ab"), Err(TooLarge { limit: 3 }.into())])).await.unwrap_err();
        assert_eq!(problem.status(), 413);
        assert_eq!(problem.member("limit").unwrap(), 3);
    }

    #[tokio::test]
    async fn a_late_body_is_408_and_names_the_time_allowed() {
        let after = Duration::from_millis(1500);
        let problem = bytes(request(vec![Ok("ab"), Err(TimedOut { after }.into())])).await.unwrap_err();
        assert_eq!(problem.status(), 408);
        assert_eq!(problem.member("timeout_ms").unwrap(), 1500);
        assert!(problem.detail_text().unwrap().contains("1.5s"));
    }

    #[tokio::test]
    async fn a_client_that_vanished_is_400_and_learns_nothing_of_our_insides() {
        let gone = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "peer 10.1.2.3 fd 7");
        let problem = bytes(request(vec![Ok("ab"), Err(gone.into())])).await.unwrap_err();
        assert_eq!(problem.status(), 400);
        assert!(!problem.detail_text().unwrap().contains("10.1.2.3"));
    }

    #[tokio::test]
    async fn a_routes_own_limit_is_named_with_and_without_a_known_length() {
        let mut chunked = request(vec![Ok("ab"), Ok("cdef")]);
        let mut sized = Request::new(Body::from("abcdef"));
        for request in [&mut chunked, &mut sized] {
            DefaultBodyLimit::max(5).apply(request);
        }
        for request in [chunked, sized] {
            let problem = bytes(request).await.unwrap_err();
            assert_eq!(problem.status(), 413);
            assert_eq!(problem.member("limit").unwrap(), 5);
        }
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes() {
        let mut request = Request::new(Body::from("abcde"));
        DefaultBodyLimit::max(5).apply(&mut request);
        assert_eq!(bytes(request).await.unwrap(), "abcde");
    }

    #[test]
    fn limits_are_found_behind_any_number_of_wrappers() {
        let wrapped = axum::Error::new(axum::Error::new(std::io::Error::other(TooLarge { limit: 9 })));
        assert_eq!(problem(&wrapped).unwrap().status(), 413);
        assert!(problem(&std::io::Error::other("else")).is_none());
    }
}
