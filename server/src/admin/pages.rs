//! Pages that daemons and services put up, such as `/debug/pubsub`.

use axum::body::Body;
use axum::extract;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use mainspring_daemon::PageRequest;
use mainspring_web::{Problem, body};

use super::State;

/// Pages come and go while the listener runs, so they are looked up for each request.
pub(super) async fn page(extract::State(state): extract::State<State>, request: Request<Body>) -> Response {
    let path = request.uri().path();
    let Some(page) = state.board.pages().into_iter().find(|page| page.path == path) else {
        return Problem::not_found("no page has this path; the index at / lists them").into_response();
    };
    let method = request.method().to_string();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default().to_owned();
    let bytes = match body::bytes(request).await {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    let answer = page.render(PageRequest::new(&method, &query, bytes).with_accept(&accept)).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !status.is_success() && answer.content_type.starts_with("text/plain") {
        return refusal(status, &answer.body).into_response();
    }
    (status, [(CONTENT_TYPE, answer.content_type)], answer.body).into_response()
}

/// What a page says no with, in the form of all other refusals.
fn refusal(status: StatusCode, why: &str) -> Problem {
    let problem = match status {
        StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed(&[Method::GET, Method::HEAD, Method::POST]),
        status => Problem::new(status),
    };
    problem.detail(why.trim_end())
}
