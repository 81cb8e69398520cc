//! The parameters in a route's path.

use std::ops::{Deref, DerefMut};

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::{Problem, reject};

/// The parameters in a route's path, `Path<u64>` for `/cats/{id}`, `Path<(String, u32)>` for two of them.
///
/// A parameter that does not parse is a 400 [`Problem`] whose member `field` names it. A route whose
/// template does not fit `T` is a mistake in the code: 500, and the log says what is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(problem(rejection)),
        }
    }
}

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> OptionalFromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        match <axum::extract::Path<T> as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(path) => Ok(path.map(|axum::extract::Path(value)| Self(value))),
            Err(rejection) => Err(problem(rejection)),
        }
    }
}

impl<T> Deref for Path<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Path<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

fn problem(rejection: PathRejection) -> Problem {
    let PathRejection::FailedToDeserializePathParams(error) = rejection else {
        return mistake(&rejection);
    };
    match error.into_kind() {
        ErrorKind::ParseErrorAtKey { key, value, expected_type } => wrong(Some(key), &value, expected_type),
        ErrorKind::ParseErrorAtIndex { index, value, expected_type } => {
            wrong(Some(format!("[{index}]")), &value, expected_type)
        }
        ErrorKind::ParseError { value, expected_type } => wrong(None, &value, expected_type),
        ErrorKind::DeserializeError { key, value, message } => {
            let what = format!("`{key}`: `{}` is not accepted: {}", reject::clip(&value), reject::clip(&message));
            Problem::bad_request(what).with("field", key)
        }
        ErrorKind::InvalidUtf8InPathParam { key } => {
            Problem::bad_request(format!("`{key}`: is not valid UTF-8 once percent-decoded")).with("field", key)
        }
        ErrorKind::Message(message) => Problem::bad_request(reject::clip(&message)),
        kind => mistake(&kind),
    }
}

fn wrong(field: Option<String>, value: &str, expected: &str) -> Problem {
    let value = reject::clip(value);
    match field {
        Some(field) => Problem::bad_request(format!("`{field}`: `{value}` is no {expected}")).with("field", field),
        None => Problem::bad_request(format!("`{value}` in the path is no {expected}")),
    }
}

fn mistake(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a route's path template and its handler's `Path` do not fit together");
    Problem::internal()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use http::Request;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    async fn call(router: Router, uri: &str) -> (u16, Value) {
        let response = router.oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[derive(Debug, serde::Deserialize)]
    struct Ids {
        cat: u64,
    }

    fn cats() -> Router {
        Router::new()
            .route("/cats/{cat}", get(async |Path(ids): Path<Ids>| ids.cat.to_string()))
            .route("/one/{id}", get(async |Path(id): Path<u64>| id.to_string()))
            .route("/pair/{a}/{b}", get(async |Path((_, b)): Path<(String, u8)>| b.to_string()))
            .route("/text/{text}", get(async |Path(text): Path<String>| text))
            .route("/odd/{id}", get(async |Path(_): Path<(u64, u64)>| ""))
            .route("/maybe", get(async |path: Option<Path<u64>>| if path.is_none() { "none" } else { "some" }))
    }

    #[tokio::test]
    async fn parameters_that_parse_reach_the_handler() {
        for uri in ["/cats/3", "/one/3", "/pair/x/3", "/text/%2f", "/maybe"] {
            assert_eq!(call(cats(), uri).await.0, 200, "{uri}");
        }
    }

    #[tokio::test]
    async fn a_parameter_that_does_not_parse_is_400_by_name_or_place() {
        let (status, body) = call(cats(), "/cats/tom").await;
        assert_eq!((status, body["field"].as_str()), (400, Some("cat")));
        assert!(body["detail"].as_str().unwrap().contains("u64"), "{body}");
        let (status, body) = call(cats(), "/one/99999999999999999999").await;
        assert_eq!(status, 400, "{body}");
        let (status, body) = call(cats(), "/pair/a/300").await;
        assert_eq!(status, 400, "{body}");
        assert!(body["detail"].as_str().unwrap().contains("u8"), "{body}");
    }

    #[tokio::test]
    async fn bytes_that_are_no_utf8_are_400() {
        let (status, body) = call(cats(), "/text/%ff").await;
        assert_eq!((status, body["field"].as_str()), (400, Some("text")));
    }

    #[tokio::test]
    async fn a_template_that_does_not_fit_is_our_fault() {
        assert_eq!(call(cats(), "/odd/1").await.0, 500);
    }

    #[tokio::test]
    async fn a_long_value_is_not_echoed_in_full() {
        let (status, body) = call(cats(), &format!("/cats/{}", "x".repeat(8000))).await;
        assert_eq!(status, 400);
        assert!(body.to_string().len() < 1000);
    }
}
