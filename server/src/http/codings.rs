//! The Transfer-Encoding fields, of which RFC 9112 lets us know one coding (section 6.1).

use http::{HeaderValue, StatusCode};
use mainspring_web::Problem;

/// The codings that a request's body is in, in the order in which they were applied.
#[derive(Default)]
pub(super) struct Codings {
    chunked: usize,
    others: bool,
}

impl Codings {
    pub(super) fn also(&mut self, value: &HeaderValue) {
        for coding in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            match coding {
                // A list may have empty places.
                [] => {}
                coding if coding.eq_ignore_ascii_case(b"chunked") => self.chunked += 1,
                _ => self.others = true,
            }
        }
    }

    /// Why the body cannot be read, if so. A handler that got it would take the coding's bytes for the content.
    pub(super) fn refusal(&self) -> Option<Problem> {
        if self.others {
            let known = "the only transfer coding known here is chunked; say content-encoding for a compressed body";
            return Some(Problem::new(StatusCode::NOT_IMPLEMENTED).detail(known));
        }
        (self.chunked > 1).then(|| Problem::bad_request("a body is chunked only once"))
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn chunked_once_is_all_there_may_be() {
        let status = |fields: &[&'static str]| {
            let mut codings = Codings::default();
            fields.iter().for_each(|field| codings.also(&HeaderValue::from_static(field)));
            codings.refusal().map(|problem| problem.into_response().status().as_u16())
        };
        for known in [&[][..], &["chunked"], &["Chunked"], &[" , chunked ,"]] {
            assert_eq!(status(known), None, "{known:?}");
        }
        assert_eq!((status(&["chunked, chunked"]), status(&["chunked", "chunked"])), (Some(400), Some(400)));
        for unknown in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked;a=b"], &["identity"]] {
            assert_eq!(status(unknown), Some(501), "{unknown:?}");
        }
    }
}
