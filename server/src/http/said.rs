//! What a request's headers say that the kit wants to know.

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, PROXY_AUTHORIZATION, REFERER, TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::codings::Codings;
use super::host::Host;
use super::request_id;

/// What the kit wants to know of a request's headers.
#[derive(Default)]
pub(super) struct Said<'a> {
    pub(super) request_id: Option<&'a HeaderValue>,
    pub(super) traceparent: Option<&'a HeaderValue>,
    pub(super) content_length: Option<&'a HeaderValue>,
    pub(super) user_agent: Option<&'a HeaderValue>,
    pub(super) host: Host<'a>,
    pub(super) codings: Codings,
    pub(super) referer: Option<&'a HeaderValue>,
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Headers that identify a client.
const SENSITIVE: [HeaderName; 4] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, HeaderName::from_static("x-api-key")];

impl<'a> Said<'a> {
    /// Looks at each header once: a look-up by name hashes the name, for each of them. Of several of one name the first
    /// counts. What identifies a client is marked, so that `{:?}` of the headers does not show it.
    pub(super) fn in_headers(headers: &'a mut HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let place = match name {
                name if name == HOST => {
                    said.host.also(value);
                    continue;
                }
                name if name == TRANSFER_ENCODING => {
                    said.codings.also(value);
                    continue;
                }
                name if name == CONTENT_LENGTH => &mut said.content_length,
                name if name == USER_AGENT => &mut said.user_agent,
                name if name == REFERER => &mut said.referer,
                name if name == TRACEPARENT => &mut said.traceparent,
                name if name == request_id::X_REQUEST_ID => &mut said.request_id,
                name => {
                    if SENSITIVE.contains(name) {
                        value.set_sensitive(true);
                    }
                    continue;
                }
            };
            place.get_or_insert(value);
        }
        said
    }
}
