//! Name-value pairs: the query string, and forms.

use std::ops::{Deref, DerefMut};

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use serde::de::DeserializeOwned;

use crate::{Problem, body, reject};

const FORM: &str = "application/x-www-form-urlencoded";

/// The query string of a request.
///
/// Rejects with a 400 [`Problem`] whose member `field` names the parameter that is missing or wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> Query<T> {
    /// Reads the query string of `uri`; one without a query string is read as an empty one.
    pub fn try_from_uri(uri: &Uri) -> Result<Self, Problem> {
        pairs(uri.query().unwrap_or_default().as_bytes(), Problem::bad_request).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::try_from_uri(&parts.uri)
    }
}

/// A form: the body of a request, or the query string of a `GET` or `HEAD`.
///
/// Rejects with a [`Problem`]: 415 for another content type or a compressed body, 422 with the member `field` for a field that is
/// missing or wrong (400 in a query string), and what [`body::bytes`] says when the body cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Query::try_from_uri(request.uri()).map(|Query(form)| Self(form));
        }
        if !is_form(request.headers()) {
            return Err(Problem::unsupported_media_type(&[FORM]));
        }
        body::expect_identity(request.headers())?;
        pairs(&body::bytes(request).await?, Problem::unprocessable).map(Self)
    }
}

fn pairs<T: DeserializeOwned>(text: &[u8], problem: fn(String) -> Problem) -> Result<T, Problem> {
    let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(text));
    serde_path_to_error::deserialize(deserializer)
        .map_err(|error| reject::field(problem, &error.path().to_string(), &error.inner().to_string()))
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
}

impl<T> Deref for Query<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Query<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Deref for Form<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Form<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Page {
        limit: u32,
        after: Option<String>,
    }

    fn query(uri: &str) -> Result<Page, Problem> {
        Query::try_from_uri(&uri.parse().unwrap()).map(|Query(page)| page)
    }

    async fn form(method: Method, content_type: &str, body: &str) -> Result<Page, Problem> {
        let request = Request::builder().method(method).uri("/?limit=7").header(CONTENT_TYPE, content_type);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        <Form<Page> as FromRequest<()>>::from_request(request, &()).await.map(|Form(page)| page)
    }

    #[test]
    fn a_query_string_is_decoded() {
        assert_eq!(query("/?limit=3&after=a%20b&other=1").unwrap(), Page { limit: 3, after: Some("a b".to_owned()) });
    }

    #[test]
    fn a_missing_or_wrong_parameter_is_400_by_name() {
        for uri in ["/", "/?limit=many", "/?limit=-1", "/?limit=", "/?limit=1&limit=2"] {
            let problem = query(uri).unwrap_err();
            assert_eq!(problem.status(), 400, "{uri}");
        }
        assert_eq!(query("/").unwrap_err().member("field").unwrap(), "limit");
        assert_eq!(query("/?limit=many").unwrap_err().member("field").unwrap(), "limit");
    }

    #[tokio::test]
    async fn a_form_is_read_from_the_body_or_for_get_from_the_query() {
        assert_eq!(form(Method::POST, FORM, "limit=3").await.unwrap().limit, 3);
        assert_eq!(form(Method::GET, "", "").await.unwrap().limit, 7);
    }

    #[tokio::test]
    async fn a_wrong_form_field_is_422_and_a_wrong_type_415() {
        let problem = form(Method::POST, FORM, "limit=x").await.unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.member("field").unwrap().as_str()), (422, Some("limit")));
        assert_eq!(form(Method::POST, "application/json", "{}").await.unwrap_err().status(), 415);
    }
}
