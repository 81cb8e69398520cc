//! Cross-origin requests, for named origins only.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};
use tower::Layer;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The longest time a browser may remember a preflight's answer. A longer one would keep a removed origin
/// working, and browsers cap it anyway.
const MAX_AGE: Duration = Duration::from_secs(600);

/// A layer that lets scripts of the named origins call this service.
///
/// There is no way to say "any origin" or "whoever asks", so the mistake of doing so together with
/// credentials cannot be made. Every answer carries `Vary: Origin`, and a preflight is remembered for ten
/// minutes at most. Without further calls the methods are `GET HEAD POST PUT PATCH DELETE`, the request
/// headers `accept authorization content-type`, and no cookies are sent.
///
/// ```
/// # fn main() -> Result<(), mainspring_web::InvalidOrigin> {
/// use mainspring_web::Cors;
/// let cors = Cors::origins(["https://shop.example", "https://*.staff.example"])?.credentials();
/// # let _: axum::Router = axum::Router::new().layer(cors);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a router has it"]
pub struct Cors {
    origins: Arc<[Origin]>,
    methods: Vec<Method>,
    headers: Vec<HeaderName>,
    exposed: Vec<HeaderName>,
    credentials: bool,
    max_age: Duration,
}

/// An origin that cannot be allowed, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CORS origin `{origin}`: {what}; write `https://shop.example` or `https://*.example.com`")]
pub struct InvalidOrigin {
    origin: String,
    what: &'static str,
}

impl Cors {
    /// Allows these origins and no others.
    ///
    /// An origin is `scheme://host` or `scheme://host:port`, without a path. `https://*.example.com` stands
    /// for every name below `example.com`, at any depth, but neither for `example.com` itself nor for
    /// `evilexample.com`. `*` alone and `https://*.com` are refused.
    pub fn origins<O: AsRef<str>>(origins: impl IntoIterator<Item = O>) -> Result<Self, InvalidOrigin> {
        let origins = origins.into_iter().map(|origin| Origin::parse(origin.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self {
            origins,
            methods: vec![Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE],
            headers: vec![ACCEPT, AUTHORIZATION, CONTENT_TYPE],
            exposed: Vec::new(),
            credentials: false,
            max_age: MAX_AGE,
        })
    }

    /// Lets the allowed origins send cookies and read answers to requests that carried them.
    pub fn credentials(mut self) -> Self {
        self.credentials = true;
        self
    }

    /// Replaces the methods allowed.
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.methods = methods.into_iter().collect();
        self
    }

    /// Allows further request headers.
    pub fn headers(mut self, headers: impl IntoIterator<Item = HeaderName>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Lets scripts read these response headers.
    pub fn expose(mut self, headers: impl IntoIterator<Item = HeaderName>) -> Self {
        self.exposed.extend(headers);
        self
    }

    /// How long a browser may remember a preflight's answer: ten minutes by default and at most.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age.min(MAX_AGE);
        self
    }
}

impl<S> Layer<S> for Cors {
    type Service = <CorsLayer as Layer<S>>::Service;

    fn layer(&self, inner: S) -> Self::Service {
        let origins = Arc::clone(&self.origins);
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin: &HeaderValue, _| {
                origin.to_str().is_ok_and(|origin| origins.iter().any(|allowed| allowed.matches(origin)))
            }))
            .allow_methods(self.methods.clone())
            .allow_headers(self.headers.clone())
            .expose_headers(self.exposed.clone())
            .allow_credentials(self.credentials)
            .max_age(self.max_age)
            .layer(inner)
    }
}

/// What one allowed origin looks like: everything is compared in lower case.
#[derive(Clone, Debug)]
struct Origin {
    scheme: &'static str,
    /// With the leading dot when `below`.
    host: String,
    below: bool,
    port: Option<u16>,
}

impl Origin {
    fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        let refuse = |what| InvalidOrigin { origin: text.to_owned(), what };
        if text == "*" {
            return Err(refuse("allowing every origin is not possible here"));
        }
        let lower = text.to_ascii_lowercase();
        let (scheme, host, port) = split(&lower).ok_or_else(|| refuse("is no origin"))?;
        let (host, below) = match host.strip_prefix("*.") {
            Some(parent) if !parent.contains('.') => return Err(refuse("would allow a whole top-level domain")),
            Some(_) => (&host[1..], true),
            None => (host, false),
        };
        if !is_name(host.strip_prefix('.').unwrap_or(host)) {
            return Err(refuse("has no valid host name"));
        }
        Ok(Self { scheme, host: host.to_owned(), below, port })
    }

    /// Whether a request's `Origin` header is this one. Only what is an origin to the letter can match, so
    /// nothing can be smuggled in front of an allowed suffix.
    fn matches(&self, origin: &str) -> bool {
        let lower = origin.to_ascii_lowercase();
        let Some((scheme, host, port)) = split(&lower) else { return false };
        let host = match self.below {
            true => host.strip_suffix(&self.host).is_some_and(is_name),
            false => host == self.host,
        };
        host && scheme == self.scheme && port == self.port
    }
}

/// Splits an origin into scheme, host and port; the scheme's own port counts as none.
fn split(origin: &str) -> Option<(&'static str, &str, Option<u16>)> {
    let (scheme, own, rest) = match origin.split_once("://")? {
        ("https", rest) => ("https", 443, rest),
        ("http", rest) => ("http", 80, rest),
        _ => return None,
    };
    let (host, port) = match rest.split_once(':') {
        // `parse` alone would also take `+80`.
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port.parse().ok()?)),
        Some(_) => return None,
        None => (rest, None),
    };
    Some((scheme, host, port.filter(|&port| port != own)))
}

/// Whether `host` consists of labels joined by dots, each of letters, digits, `-` and `_`.
fn is_name(host: &str) -> bool {
    host.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::{HeaderMap, Request};
    use tower::ServiceExt;

    use super::*;

    fn allows(pattern: &str, origin: &str) -> bool {
        Origin::parse(pattern).unwrap().matches(origin)
    }

    async fn call(cors: Cors, method: Method, origin: &str) -> HeaderMap {
        let request = Request::builder()
            .method(method)
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .body(Body::empty())
            .unwrap();
        let router = Router::new().route("/", get(async || "ok")).layer(cors);
        router.oneshot(request).await.unwrap().into_parts().0.headers
    }

    #[test]
    fn an_exact_origin_matches_itself_only() {
        assert!(allows("https://shop.example", "https://shop.example"));
        assert!(allows("https://Shop.Example", "https://shop.EXAMPLE:443"));
        assert!(allows("http://localhost:3000", "http://localhost:3000"));
        for other in [
            "http://shop.example",
            "https://shop.example:8443",
            "https://a.shop.example",
            "https://shop.example.evil.com",
            "https://shop.example/",
            "null",
            "",
        ] {
            assert!(!allows("https://shop.example", other), "{other}");
        }
    }

    #[test]
    fn a_wildcard_matches_whole_labels_only() {
        for inside in ["https://a.example.com", "https://a.b.example.com", "https://A-1.Example.Com"] {
            assert!(allows("https://*.example.com", inside), "{inside}");
        }
        for outside in [
            "https://evilexample.com",
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "https://evil.com/.example.com",
            "https://evil.com#.example.com",
            "https://evil.com?.example.com",
            "https://evil.com\\.example.com",
            "https://evil.com:80.example.com",
            "https://evil.com:80@a.example.com",
            "https://user@a.example.com",
            "https://a.example.com.evil.com",
            "https://a.example.com:+443",
            "https://a.example.com:8443",
            "https://*.example.com",
            "https://a%2eexample.com",
            "http://a.example.com",
            "ftp://a.example.com",
            "https://evil.com https://a.example.com",
        ] {
            assert!(!allows("https://*.example.com", outside), "{outside}");
        }
    }

    #[test]
    fn what_is_no_origin_or_allows_too_much_is_refused_with_a_reason() {
        for (origin, reason) in [
            ("*", "every origin"),
            ("https://*", "host name"),
            ("https://*.com", "top-level"),
            ("shop.example", "no origin"),
            ("https://shop.example/path", "host name"),
            ("https://a.*.example.com", "host name"),
            ("https://", "host name"),
            ("https://*.", "top-level"),
            ("https://shop.example:99999", "no origin"),
            ("null", "no origin"),
        ] {
            let error = Cors::origins([origin]).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(origin), "{origin}: {error}");
        }
    }

    #[tokio::test]
    async fn an_allowed_origin_is_answered_by_name_and_others_get_nothing() {
        let cors = Cors::origins(["https://*.example.com"]).unwrap().credentials();
        let answer = call(cors.clone(), Method::GET, "https://a.example.com").await;
        assert_eq!(answer["access-control-allow-origin"], "https://a.example.com");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        assert!(answer["vary"].to_str().unwrap().to_ascii_lowercase().contains("origin"));

        let answer = call(cors, Method::GET, "https://evilexample.com").await;
        assert!(!answer.contains_key("access-control-allow-origin"));
        assert!(answer["vary"].to_str().unwrap().to_ascii_lowercase().contains("origin"));
    }

    #[tokio::test]
    async fn credentials_are_off_unless_asked_for() {
        let answer = call(Cors::origins(["https://a.example"]).unwrap(), Method::GET, "https://a.example").await;
        assert!(!answer.contains_key("access-control-allow-credentials"));
    }

    #[tokio::test]
    async fn a_preflight_is_remembered_for_ten_minutes_at_most() {
        let cors = Cors::origins(["https://a.example"]).unwrap().max_age(Duration::from_secs(86_400));
        let answer = call(cors, Method::OPTIONS, "https://a.example").await;
        assert_eq!(answer["access-control-max-age"], "600");
        assert_eq!(answer["access-control-allow-methods"], "GET,HEAD,POST,PUT,PATCH,DELETE");
        assert_eq!(answer["access-control-allow-headers"], "accept,authorization,content-type");
    }
}
