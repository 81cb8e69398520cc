//! One request: from hyper's call to the response's head.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use mainspring_daemon::BoxError;
use mainspring_observe::correlation::{self, Correlation};
use mainspring_observe::panics;
use mainspring_observe::trace::TraceContext;
use mainspring_web::Problem;
use tokio::time::{Instant, Sleep};
use tower::Service;

use super::parting::Parting;
use super::pooled::Pooled;
use super::record::{Line, Outcome, Record};
use super::request_body::{Intake, RequestBody};
use super::response_body::ResponseBody;
use super::said::Said;
use super::wording::as_problem;
use super::{Dispatch, request_id};
use crate::metrics::method_index;
use crate::serve::{Conn, Protocol};

/// Answers the requests of one connection.
#[derive(Clone, Debug)]
pub(crate) struct RequestService {
    dispatch: Arc<Dispatch>,
    conn: Option<Arc<Conn>>,
}

/// The answer to one request, on its way.
#[derive(Debug)]
pub(crate) struct RequestFuture {
    work: Work,
    request_id: Option<HeaderValue>,
    record: Option<Pooled>,
    /// Armed when the handler first keeps us waiting, unless the route is exempt.
    timeout: Option<Pin<Box<Sleep>>>,
    head_only: bool,
    /// The body of a request that was refused for it, in HTTP/2.
    unread: Option<Body>,
}

enum Work {
    /// The answer is known without asking the handler.
    Answered(Option<Response<Body>>),
    Handling(RouteFuture<Infallible>),
}

impl RequestService {
    pub(crate) fn new(dispatch: Arc<Dispatch>, conn: Arc<Conn>) -> Self {
        Self { dispatch, conn: Some(conn) }
    }

    /// A service without a connection, for requests that are made in this process.
    pub(crate) fn detached(dispatch: Arc<Dispatch>) -> Self {
        Self { dispatch, conn: None }
    }

    /// Begins a request.
    pub(crate) fn handle<B>(&self, request: Request<B>) -> RequestFuture
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let dispatch = &self.dispatch;
        let (mut head, body) = request.into_parts();
        let route = dispatch.routes.find(head.uri.path());
        if let Some(conn) = &self.conn {
            conn.request_begun(route);
        }
        let has_room = dispatch.enter();
        let Said { request_id, traceparent, content_length, user_agent, host, codings, referer } =
            Said::in_headers(&mut head.headers);
        let (id, request_id) = request_id::of(request_id);
        let received = traceparent.and_then(|value| TraceContext::parse(value.as_bytes()));
        let trace = received.map_or_else(TraceContext::new, |received| received.child());
        let length = content_length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let intake = (!body.is_end_stream()).then(Arc::<Intake>::default);
        let record = Pooled::new(Record {
            dispatch: Arc::clone(dispatch),
            conn: self.conn.clone(),
            route,
            method: method_index(&head.method),
            started: Instant::now(),
            correlation: Correlation { trace: Some(trace), request_id: Some(id) },
            status: 0,
            outcome: None,
            bytes_out: 0,
            intake: intake.clone(),
            line: dispatch.access.as_ref().map(|access| Line {
                uri: head.uri.clone(),
                version: head.version,
                user_agent: user_agent.cloned(),
                referer: referer.filter(|_| access.shows_referer()).cloned(),
            }),
        });
        let head_only = head.method == Method::HEAD;
        let mut unread = None;
        let work = if self.conn.is_some() && !host.is_fit_for(head.version) {
            let problem =
                Problem::bad_request("a request in HTTP/1.1 has exactly one Host field, with a name or an address");
            Work::Answered(Some(problem.header(CONNECTION, HeaderValue::from_static("close")).into_response()))
        } else if let Some(problem) = codings.refusal() {
            Work::Answered(Some(problem.header(CONNECTION, HeaderValue::from_static("close")).into_response()))
        } else if !has_room && !dispatch.routes.get(route).vital {
            let problem = Problem::unavailable("max_in_flight has been reached", Duration::from_secs(1));
            Work::Answered(Some(problem.into_response()))
        } else if length.is_some_and(|length| length > dispatch.settings.max_body) {
            unread = (head.version == Version::HTTP_2).then(|| Body::new(body));
            Work::Answered(Some(Problem::payload_too_large(dispatch.settings.max_body).into_response()))
        } else {
            if let Some(conn) = &self.conn {
                head.extensions.insert(ConnectInfo(conn.peer));
            }
            let body = match intake {
                Some(intake) => {
                    let settings = &dispatch.settings;
                    Body::new(RequestBody::new(body, settings.max_body, settings.body_timeout, intake))
                }
                None => Body::empty(),
            };
            Work::Handling(dispatch.router.clone().call(Request::from_parts(head, body)))
        };
        RequestFuture { work, request_id: Some(request_id), record: Some(record), timeout: None, head_only, unread }
    }
}

impl hyper::service::Service<Request<Incoming>> for RequestService {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = RequestFuture;

    fn call(&self, request: Request<Incoming>) -> RequestFuture {
        self.handle(request)
    }
}

impl Future for RequestFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(record) = &mut this.record else { return Poll::Pending };
        let handler = match &mut this.work {
            Work::Answered(response) => {
                let response = response.take().unwrap_or_default();
                return Poll::Ready(Ok(this.answer(response)));
            }
            Work::Handling(handler) => handler,
        };
        let polled = correlation::lend(&mut record.correlation, || {
            catch_unwind(AssertUnwindSafe(|| Pin::new(handler).poll(cx)))
        });
        let response = match polled {
            Ok(Poll::Ready(Ok(response))) => response,
            Ok(Poll::Pending) => {
                let Some(limit) = record.route().timeout else { return Poll::Pending };
                let started = record.started;
                let timeout = this.timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(started + limit)));
                if timeout.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                record.outcome = Some(Outcome::Timeout);
                Problem::gateway_timeout(limit).into_response()
            }
            // The hook has logged it, with its place and this request's id.
            Err(_) => {
                panics::count("handler");
                record.outcome = Some(Outcome::Panic);
                Problem::internal().into_response()
            }
        };
        // The handler ends before its answer is sent: what it held is free, and after a panic it must not run again.
        this.work = Work::Answered(None);
        Poll::Ready(Ok(this.answer(response)))
    }
}

impl RequestFuture {
    /// Finishes the response's head and hands the record on to its body.
    fn answer(&mut self, response: Response<Body>) -> Response<ResponseBody> {
        let Some(mut record) = self.record.take() else { unreachable!("a request is answered once") };
        let (mut head, body) = as_problem(response, &record).into_parts();
        let body = match self.unread.take() {
            Some(unread) => Body::new(Parting::new(body, unread, record.dispatch.settings.body_timeout)),
            None => body,
        };
        record.status = head.status.as_u16();
        if let Some(mut id) = self.request_id.take() {
            // HTTP/2 remembers headers to send them shorter next time. This one never comes again.
            id.set_sensitive(true);
            head.headers.insert(request_id::X_REQUEST_ID, id);
        }
        let mut silent = self.head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(conn) = &record.conn {
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                silent = true;
                conn.upgraded(
                    head.headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")),
                );
            } else if conn.protocol() == Protocol::Http1 && record.dispatch.is_leaving() {
                head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        let endless = is_event_stream(&head.headers);
        Response::from_parts(head, ResponseBody::new(body, record, endless, silent))
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    // Answers have few headers: looking at each costs less than hashing one name.
    headers.iter().any(|(name, value)| *name == CONTENT_TYPE && value.as_bytes().starts_with(b"text/event-stream"))
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Answered(_) => "Answered",
            Self::Handling(_) => "Handling",
        })
    }
}
