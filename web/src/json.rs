//! JSON in and out.

use std::ops::{Deref, DerefMut};

use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{Problem, body, reject};

const ACCEPTED: [&str; 2] = ["application/json", "application/*+json"];

/// A JSON body, read from a request or written to a response.
///
/// As an extractor it rejects with a [`Problem`]: 415 for another or no content type and for a compressed body, 400
/// with `line` and `column` for text that is no JSON, 422 with the `field` for JSON that does not fit `T`, and what
/// [`body::bytes`] says when the body is too large, too late or cut short. `Option<Json<T>>` is `None` for a
/// request without a content type.
///
/// As a response it is `application/json`; a value that cannot be serialized is a 500, and the cause is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> Json<T> {
    /// Reads a value from JSON text; what follows the value may only be white space.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            rejection(&path, error.inner(), bytes)
        })?;
        deserializer.end().map_err(|error| rejection(".", &error, bytes))?;
        Ok(Self(value))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type(&ACCEPTED));
        }
        body::expect_identity(request.headers())?;
        Self::from_bytes(&body::bytes(request).await?)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if !request.headers().contains_key(CONTENT_TYPE) {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
            Err(error) => {
                tracing::error!(%error, r#type = std::any::type_name::<T>(), "response could not be written as JSON");
                Problem::internal().into_response()
            }
        }
    }
}

impl<T> From<T> for Json<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(subtype) = essence.strip_prefix("application/") else { return false };
    // A suffix needs something before it: `application/+json` names no format.
    subtype == "json" || subtype.strip_suffix("+json").is_some_and(|format| !format.is_empty())
}

fn rejection(path: &str, error: &serde_json::Error, bytes: &[u8]) -> Problem {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(position.as_str()).unwrap_or(&message);
    let problem = match error.classify() {
        Category::Data => reject::field(Problem::unprocessable, path, message),
        _ if bytes.is_empty() => return Problem::bad_request("the request body is empty; a JSON document is expected"),
        _ => Problem::bad_request(format!("the request body is not valid JSON: {}{position}", reject::clip(message))),
    };
    problem.with("line", error.line()).with("column", error.column())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::StatusCode;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Order {
        id: String,
        lines: Vec<Line>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Line {
        quantity: u32,
    }

    async fn post(content_type: Option<&str>, body: &str) -> Result<Order, Problem> {
        let mut request = Request::new(Body::from(body.to_owned()));
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        <Json<Order> as FromRequest<()>>::from_request(request, &()).await.map(|Json(order)| order)
    }

    async fn rejected(body: &str) -> Problem {
        post(Some("application/json"), body).await.unwrap_err()
    }

    const GOOD: &str = r#"{"id":"A1","lines":[{"quantity":2}]}"#;

    #[tokio::test]
    async fn json_and_its_relatives_are_read() {
        for accepted in
            ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", "application/json ;x=1"]
        {
            assert_eq!(post(Some(accepted), GOOD).await.unwrap().id, "A1", "{accepted}");
        }
    }

    #[tokio::test]
    async fn any_other_type_is_415_and_hears_what_is_accepted() {
        let refused = [
            "text/plain",
            "application/jsonp",
            "application/+json",
            "json",
            "text/json",
            "application/x; application/json",
        ];
        for content_type in refused.map(Some).into_iter().chain([None]) {
            let problem = post(content_type, GOOD).await.unwrap_err();
            assert_eq!(problem.status(), 415, "{content_type:?}");
            assert_eq!(problem.member("accepted").unwrap()[0], "application/json");
        }
    }

    #[tokio::test]
    async fn a_compressed_body_is_415_and_hears_that_only_identity_is_read() {
        let post = async |encodings: &[&str]| {
            let request = Request::builder().header(CONTENT_TYPE, "application/json");
            let request = encodings.iter().fold(request, |request, coding| request.header("content-encoding", *coding));
            let request = request.body(Body::from(GOOD)).unwrap();
            <Json<Order> as FromRequest<()>>::from_request(request, &()).await
        };
        for encodings in [&["gzip"][..], &["identity, br"], &["identity", "deflate"]] {
            let response = post(encodings).await.unwrap_err().into_response();
            assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{encodings:?}");
            assert_eq!(response.headers()["accept-encoding"], "identity");
        }
        for encodings in [&["identity"][..], &["Identity"], &[""]] {
            assert_eq!(post(encodings).await.unwrap().0.id, "A1", "{encodings:?}");
        }
    }

    #[tokio::test]
    async fn broken_json_is_400_with_line_and_column() {
        let problem = rejected("{\n  \"id\": oops\n}").await;
        assert_eq!(problem.status(), 400);
        assert_eq!(problem.member("line").unwrap(), 2);
        assert_eq!(problem.member("column").unwrap(), 9);
    }

    #[tokio::test]
    async fn text_after_the_document_and_a_cut_document_are_400() {
        for body in [format!("{GOOD} x"), GOOD[..GOOD.len() - 1].to_owned(), String::new(), "\u{feff}{}".to_owned()] {
            assert_eq!(rejected(&body).await.status(), 400, "{body}");
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_utf8_are_400() {
        assert_eq!(Json::<Order>::from_bytes(b"{\"id\":\"\xff\"}").unwrap_err().status(), 400);
    }

    #[tokio::test]
    async fn nesting_without_end_is_400_and_no_stack_overflow() {
        assert_eq!(Json::<serde_json::Value>::from_bytes("[".repeat(1_000_000).as_bytes()).unwrap_err().status(), 400);
    }

    #[tokio::test]
    async fn a_missing_field_is_422_by_its_full_path() {
        let problem = rejected(r#"{"id":"A1","lines":[{"quantity":1},{}]}"#).await;
        assert_eq!(problem.status(), 422);
        assert_eq!(problem.member("field").unwrap(), "lines[1].quantity");
        assert_eq!(problem.detail_text().unwrap(), "`lines[1].quantity`: is required but missing");
    }

    #[tokio::test]
    async fn a_wrong_field_is_422_and_hears_what_was_expected() {
        let problem = rejected(r#"{"id":"A1","lines":[{"quantity":"two"}]}"#).await;
        assert_eq!(problem.status(), 422);
        assert_eq!(problem.member("field").unwrap(), "lines[0].quantity");
        assert!(problem.detail_text().unwrap().contains("expected u32"), "{problem:?}");
    }

    #[tokio::test]
    async fn an_unknown_field_is_422_by_name() {
        let problem = rejected(r#"{"id":"A1","lines":[],"idd":1}"#).await;
        assert_eq!(problem.status(), 422);
        assert!(problem.detail_text().unwrap().contains("unknown field `idd`"), "{problem:?}");
    }

    #[tokio::test]
    async fn a_document_of_the_wrong_shape_is_422_without_a_field() {
        let problem = rejected("[]").await;
        assert_eq!(problem.status(), 422);
        let problem = rejected("7").await;
        assert_eq!(problem.status(), 422);
        assert!(problem.member("field").is_none());
    }

    #[tokio::test]
    async fn a_huge_wrong_value_is_not_echoed_in_full() {
        let problem = rejected(&format!(r#"{{"id":"A1","lines":"{}"}}"#, "x".repeat(100_000))).await;
        assert_eq!(problem.status(), 422);
        assert!(serde_json::to_string(&problem).unwrap().len() < 1000);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_or_too_late_is_said_to_be_so_and_not_to_be_broken_json() {
        let late = body::TimedOut { after: std::time::Duration::from_secs(15) };
        for (error, status) in [(body::TooLarge { limit: 10 }.into(), 413), (crate::BoxError::from(late), 408)] {
            let frames = futures_util::stream::iter([Ok(bytes::Bytes::from("{")), Err(error)]);
            let request = Request::builder().header(CONTENT_TYPE, "application/json");
            let request = request.body(Body::from_stream(frames)).unwrap();
            let rejection = <Json<Order> as FromRequest<()>>::from_request(request, &()).await.unwrap_err();
            assert_eq!(rejection.status(), status);
        }
    }

    #[tokio::test]
    async fn no_content_type_is_none_and_a_wrong_one_still_rejects() {
        let absent = Request::new(Body::empty());
        let absent = <Json<Order> as OptionalFromRequest<()>>::from_request(absent, &()).await;
        assert_eq!(absent.unwrap(), None);
        let wrong = Request::builder().header(CONTENT_TYPE, "text/plain").body(Body::empty()).unwrap();
        assert!(<Json<Order> as OptionalFromRequest<()>>::from_request(wrong, &()).await.is_err());
    }

    #[tokio::test]
    async fn a_response_is_json() {
        let response = Json(serde_json::json!({"a": 1})).into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), r#"{"a":1}"#);
    }

    #[tokio::test]
    async fn a_response_that_cannot_be_written_is_a_bare_500() {
        let unwritable = std::collections::BTreeMap::from([((1, 2), "no text key")]);
        let response = Json(unwritable).into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }
}
