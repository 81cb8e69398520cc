//! An error answer as RFC 9457 describes it.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

/// The members that RFC 9457 defines; extension members may not take their names.
const STANDARD: [&str; 5] = ["type", "title", "status", "detail", "instance"];

/// An HTTP error answer: `application/problem+json` with `type`, `title`, `status`, `detail`, `instance`
/// and any further members.
///
/// Everything in it is shown to the client. A cause that the client must not see belongs in the log:
/// return it as an [`Error`](crate::Error) instead.
///
/// ```
/// use mainspring_web::Problem;
/// let problem = Problem::not_found("there is no order `A9`").with("order", "A9");
/// assert_eq!(problem.status(), 404);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Inner>); // boxed, so that a `Result<T, Problem>` stays small

#[derive(Clone, Debug, PartialEq)]
struct Inner {
    status: StatusCode,
    kind: Option<String>,
    title: Option<Cow<'static, str>>,
    detail: Option<String>,
    instance: Option<String>,
    members: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem with the status' own title and nothing else.
    pub fn new(status: StatusCode) -> Self {
        Self(Box::new(Inner {
            status,
            kind: None,
            title: None,
            detail: None,
            instance: None,
            members: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST).detail(detail)
    }

    /// 404: what was asked for does not exist.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND).detail(detail)
    }

    /// 405: the path exists, the method does not; `Allow` names those that do.
    pub fn method_not_allowed(allowed: &[Method]) -> Self {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let detail = format!("this resource answers to {}", if allowed.is_empty() { "no method" } else { &allowed });
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED).detail(detail);
        match HeaderValue::try_from(allowed) {
            Ok(allowed) => problem.header(ALLOW, allowed),
            Err(_) => problem, // a method is a token, and every token is a header value
        }
    }

    /// 408: the request did not arrive in time. The member `timeout_ms` tells the time allowed.
    pub fn request_timeout(after: Duration) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT)
            .detail(format!("the request did not arrive within {after:?}"))
            .with("timeout_ms", millis(after))
    }

    /// 413: the body is larger than `limit` bytes. The member `limit` repeats the number.
    pub fn payload_too_large(limit: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE)
            .detail(format!("the request body is larger than the {limit} bytes allowed"))
            .with("limit", limit)
    }

    /// 415: the body is of another type than those in `accepted`, which the member `accepted` lists.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .detail(format!("the content type must be {}", accepted.join(" or ")))
            .with("accepted", accepted)
    }

    /// 422: the request is well formed, but what it says cannot be done.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY).detail(detail)
    }

    /// 422 for one field, which the member `field` names: `Problem::invalid_field("items[2].id", "is empty")`.
    pub fn invalid_field(field: impl Into<String>, what: impl AsRef<str>) -> Self {
        let field = field.into();
        Self::unprocessable(format!("`{field}`: {}", what.as_ref())).with("field", field)
    }

    /// 429: this client asks too often; it may ask again after `retry_after`, rounded up to seconds.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS).detail("too many requests").retry_after(retry_after)
    }

    /// 431: the request head is larger than `limit` bytes. The member `limit` repeats the number.
    pub fn headers_too_large(limit: u64) -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            .detail(format!("the request head is larger than the {limit} bytes allowed"))
            .with("limit", limit)
    }

    /// 500: something broke here. It says nothing about the cause, on purpose.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR).detail("the server met an unexpected condition")
    }

    /// 503: not now; the client may ask again after `retry_after`, rounded up to seconds.
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE).detail(detail).retry_after(retry_after)
    }

    /// 504: no answer was ready after `after`. The member `timeout_ms` repeats the time.
    pub fn gateway_timeout(after: Duration) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT)
            .detail(format!("no answer was ready within {after:?}"))
            .with("timeout_ms", millis(after))
    }

    /// Says what happened this time. Shown to the client.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Replaces the title, which is the status' reason phrase by default.
    #[must_use]
    pub fn title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.0.title = Some(title.into());
        self
    }

    /// Names the kind of problem by a URI (`type`); without it clients see `about:blank`.
    #[must_use]
    pub fn kind(mut self, uri: impl Into<String>) -> Self {
        self.0.kind = Some(uri.into());
        self
    }

    /// Names this occurrence by a URI reference (`instance`).
    #[must_use]
    pub fn instance(mut self, uri: impl Into<String>) -> Self {
        self.0.instance = Some(uri.into());
        self
    }

    /// Adds a member that clients can read by program: `.with("limit", 2_097_152)`.
    ///
    /// The five names of RFC 9457 have methods of their own and are refused here: a debug build panics, a
    /// release build leaves the member out.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let name = name.into();
        debug_assert!(!STANDARD.contains(&name.as_str()), "`{name}` is a standard member and has its own method");
        if !STANDARD.contains(&name.as_str()) {
            self.0.members.insert(name, value.into());
        }
        self
    }

    /// Adds a response header, replacing one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Tells the client when to come back: `Retry-After`, in whole seconds, rounded up, at least one.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The status this problem answers with.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What happened, as the client will read it.
    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// An extension member.
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.members.get(name)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = &*self.0;
        let title = inner.title.as_deref().or(inner.status.canonical_reason()).unwrap_or("Error");
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", inner.kind.as_deref().unwrap_or("about:blank"))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", &inner.status.as_u16())?;
        if let Some(detail) = &inner.detail {
            map.serialize_entry("detail", detail)?;
        }
        if let Some(instance) = &inner.instance {
            map.serialize_entry("instance", instance)?;
        }
        for (name, value) in &inner.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Strings, numbers and JSON values serialize without fail, so the fallback is never seen.
        let body = serde_json::to_vec(&self).unwrap_or_else(|_| b"{}".to_vec());
        let mut response = Response::new(body.into());
        *response.status_mut() = self.0.status;
        *response.headers_mut() = self.0.headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &Problem) -> Value {
        serde_json::to_value(problem).unwrap()
    }

    #[test]
    fn standard_members_come_first_and_extensions_follow() {
        let problem = Problem::payload_too_large(2_097_152).instance("/requests/7");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"about:blank","title":"Payload Too Large","status":413,"detail":"the request body is larger than the 2097152 bytes allowed","instance":"/requests/7","limit":2097152}"#
        );
    }

    #[test]
    fn every_constructor_answers_its_own_status_as_problem_json() {
        let second = Duration::from_secs(1);
        let all = [
            (Problem::bad_request("x"), 400),
            (Problem::not_found("x"), 404),
            (Problem::method_not_allowed(&[Method::GET]), 405),
            (Problem::request_timeout(second), 408),
            (Problem::payload_too_large(1), 413),
            (Problem::unsupported_media_type(&["text/plain"]), 415),
            (Problem::unprocessable("x"), 422),
            (Problem::invalid_field("a", "x"), 422),
            (Problem::too_many_requests(second), 429),
            (Problem::headers_too_large(1), 431),
            (Problem::internal(), 500),
            (Problem::unavailable("x", second), 503),
            (Problem::gateway_timeout(second), 504),
        ];
        for (problem, status) in all {
            assert_eq!(json(&problem)["status"], status);
            let response = problem.into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let response = Problem::method_not_allowed(&[Method::GET, Method::POST]).into_response();
        assert_eq!(response.headers()[ALLOW], "GET, POST");
    }

    #[test]
    fn no_method_at_all_is_an_empty_allow_header() {
        assert_eq!(Problem::method_not_allowed(&[]).into_response().headers()[ALLOW], "");
    }

    #[test]
    fn retry_after_rounds_up_and_never_says_zero() {
        for (wait, header) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (30_000, "30")] {
            let problem = Problem::unavailable("busy", Duration::from_millis(wait));
            assert_eq!(problem.into_response().headers()[RETRY_AFTER], header);
        }
        assert!(Problem::too_many_requests(Duration::MAX).into_response().headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn type_and_title_can_be_set() {
        let problem = Problem::new(StatusCode::CONFLICT).kind("https://errors.example/stock").title("Out of stock");
        assert_eq!(json(&problem)["type"], "https://errors.example/stock");
        assert_eq!(json(&problem)["title"], "Out of stock");
    }

    #[test]
    #[should_panic(expected = "standard member")]
    fn a_standard_member_is_not_overwritten_by_an_extension() {
        let _ = Problem::internal().with("status", 200);
    }

    #[test]
    fn text_from_the_client_cannot_break_out_of_the_json() {
        let problem = Problem::bad_request("\"},\r\n\u{0}\u{2028}");
        let text = serde_json::to_string(&problem).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["detail"], "\"},\r\n\u{0}\u{2028}");
    }
}
