//! Who may change something on the admin listener: clients on this machine, and those that know the token. No web pages.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::{self, ConnectInfo};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mainspring_config::Secret;
use mainspring_web::Problem;

use super::State;

/// Lets a request pass that only reads, or whose sender may change something.
pub(super) async fn check(
    extract::State(state): extract::State<State>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let peer = request.extensions().get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| *peer);
    // HTTP/2 has the host in its target.
    let target = request.uri().authority();
    match refusal(peer, target, request.headers(), state.token.as_ref()).filter(|_| !reads) {
        Some(why) => Problem::new(StatusCode::FORBIDDEN).detail(why).into_response(),
        None => next.run(request).await,
    }
}

/// Why the sender may not change anything, if so. A request without a peer was made inside this process.
fn refusal(
    peer: Option<SocketAddr>,
    target: Option<&Authority>,
    headers: &HeaderMap,
    token: Option<&Secret>,
) -> Option<&'static str> {
    // A browser sends a POST to any address that the page it shows names, loopback too, and says where the page is
    // from; whoever wrote that page is not who operates this process.
    let site = headers.get("sec-fetch-site");
    if headers.contains_key(ORIGIN) || site.is_some_and(|site| site != "none") {
        return Some("web pages may not change anything here; use curl or the like");
    }
    if peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback()) {
        // A page may also have its own name lead here, and then it is from the same site.
        let host = headers.get(HOST).map(|host| host.as_bytes().try_into().ok());
        let foreign = target.is_some_and(|target| !is_here(target))
            || host.is_some_and(|host: Option<Authority>| !host.is_some_and(|host| is_here(&host)));
        return foreign
            .then_some("something is changed here only at localhost or an address; use that in place of the name");
    }
    let Some(token) = token else {
        return Some("only clients on this machine may change something; configure admin.token to let others");
    };
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let knows = shown.is_some_and(|shown| are_equal(shown, token.expose().as_bytes()));
    (!knows).then_some("clients on other machines must show the token: authorization: Bearer <admin.token>")
}

/// Whether a host is no name that anybody could have lead here.
fn is_here(host: &Authority) -> bool {
    let host = host.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Takes as long whichever byte differs, so that its time tells nothing of a secret.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn may(peer: &str, headers: &[(&'static str, &'static str)], token: Option<&str>) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let token = token.map(|token| Secret::from(token.to_owned()));
        refusal(Some(peer.parse().unwrap()), None, &headers.collect(), token.as_ref()).is_none()
    }

    #[test]
    fn clients_of_this_machine_may_and_those_that_know_the_token() {
        for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(may(local, &[], None) && may(local, &[], Some("t")), "{local}");
        }
        let remote = "10.0.0.1:1";
        assert!(!may(remote, &[], None) && !may(remote, &[], Some("right")));
        assert!(may(remote, &[("authorization", "Bearer right")], Some("right")));
        for wrong in ["Bearer wrong", "Bearer rightt", "Bearer ", "right", "Basic right"] {
            assert!(!may(remote, &[("authorization", wrong)], Some("right")), "{wrong}");
        }
        assert!(!may(remote, &[("authorization", "Bearer ")], None));
    }

    #[test]
    fn a_name_that_somebody_had_lead_here_changes_nothing() {
        let local = "127.0.0.1:1";
        for here in ["localhost", "LocalHost:9901", "127.0.0.1:9901", "10.1.2.3", "[::1]:9901", "[::1]"] {
            assert!(may(local, &[("host", here)], None), "{here}");
            assert!(is_here(&here.parse().unwrap()), "{here}");
        }
        for name in ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!may(local, &[("host", name)], None), "{name}");
        }
        assert!(!is_here(&"evil.example:9901".parse().unwrap()));
        assert!(
            may("10.0.0.1:1", &[("host", "orders"), ("authorization", "Bearer t")], Some("t")),
            "it knows the token"
        );
    }

    #[test]
    fn web_pages_may_not_whoever_shows_them() {
        for header in [("origin", "http://localhost:9901"), ("origin", "null"), ("sec-fetch-site", "same-origin")] {
            assert!(!may("127.0.0.1:1", &[header, ("authorization", "Bearer t")], Some("t")), "{header:?}");
        }
        assert!(may("127.0.0.1:1", &[("sec-fetch-site", "none")], None), "somebody typed it");
    }
}
