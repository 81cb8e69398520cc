//! Answers of axum's in the kit's own words.

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Response, StatusCode};
use mainspring_web::Problem;

use super::record::Record;

/// Says in the kit's own words what axum says in plain text, or without any: no such route, wrong method, and a body
/// that broke a limit under an extractor which does not know the limit.
pub(super) fn as_problem(response: Response<Body>, record: &Record) -> Response<Body> {
    let headers = response.headers();
    let unsaid = || headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let settings = &record.dispatch.settings;
    let problem = match response.status() {
        StatusCode::NOT_FOUND if record.route == 0 && http_body::Body::is_end_stream(response.body()) => {
            Problem::new(StatusCode::NOT_FOUND).detail("no route has this path")
        }
        StatusCode::METHOD_NOT_ALLOWED if unsaid() => match headers.get(ALLOW) {
            Some(allow) => Problem::new(StatusCode::METHOD_NOT_ALLOWED)
                .detail(format!("this route answers {}", String::from_utf8_lossy(allow.as_bytes())))
                .header(ALLOW, allow.clone()),
            None => return response,
        },
        // A handler that reads the raw body sees an error like any other, and makes any of these of it.
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INTERNAL_SERVER_ERROR if unsaid() => {
            match &record.intake {
                Some(intake) if intake.was_too_large() => Problem::payload_too_large(settings.max_body),
                Some(intake) if intake.was_too_late() => Problem::request_timeout(settings.body_timeout),
                _ => return response,
            }
        }
        _ => return response,
    };
    problem.into_response()
}
