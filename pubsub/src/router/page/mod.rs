//! `/debug/pubsub`: what is in flight now, and the switches of the routes.

mod json;
mod text;
mod view;

use mainspring_daemon::{Context, PageRequest, PageResponse};

use self::view::RouteView;
use super::handle::RouterHandle;
use super::route_state::RouteState;
use crate::ErrorKind;
use crate::url::decode;

const PATH: &str = "/debug/pubsub";

const USAGE: &str = "POST /debug/pubsub?route=<name>&do=pause, or do=resume, or do=drain";

/// What a request wants done.
struct Order {
    route: String,
    verb: String,
}

/// Puts up the page. Several routers share it: each shows what was there before, then its own routes; and hands on the
/// orders for routes that are not its own.
pub(super) fn serve(cx: &Context, handle: RouterHandle) {
    let before = cx.board().pages().into_iter().find(|page| page.path == PATH);
    cx.page(PATH, "Messages in flight", move |request| {
        let before = before.clone();
        let answer = answer(&request, &handle, before.is_some());
        async move {
            match (answer, before) {
                (Answer::Final(response), _) => response,
                (Answer::NotOurs, Some(before)) => before.render(request).await,
                (Answer::NotOurs, None) => refuse(404, "there is no such route"),
                (Answer::Shown(own), Some(before)) => {
                    let mut response = before.render(request).await;
                    response.body = own.after(&response.body);
                    response
                }
                (Answer::Shown(own), None) => own.page(),
            }
        }
    });
}

/// What one router has to say to a request.
enum Answer {
    Shown(Shown),
    Final(PageResponse),
    /// The order is for a route of another router.
    NotOurs,
}

/// The routes of one router.
enum Shown {
    Text(String),
    Json(Vec<serde_json::Value>),
}

impl Shown {
    fn page(self) -> PageResponse {
        match self {
            Self::Text(text) => PageResponse::text(text),
            Self::Json(routes) => PageResponse::json(json::page(routes)),
        }
    }

    /// The page with the routes of other routers before.
    fn after(self, others: &str) -> String {
        match self {
            Self::Text(text) => format!("{others}{text}"),
            Self::Json(routes) => json::page(json::read(others).into_iter().chain(routes).collect()),
        }
    }
}

/// What the query asks for, else the header; `None` when the query is for something else.
fn wants_json(request: &PageRequest) -> Option<bool> {
    match request.query.as_str() {
        "" => Some(
            request.accept.split(',').any(|media| media.split(';').next().map(str::trim) == Some("application/json")),
        ),
        "format=json" => Some(true),
        "format=text" => Some(false),
        _ => None,
    }
}

fn answer(request: &PageRequest, handle: &RouterHandle, others: bool) -> Answer {
    match request.method.as_str() {
        "GET" | "HEAD" | "" => {
            let Some(json) = wants_json(request) else {
                let what = format!(
                    "reading this page takes no query but `format=json` or `format=text`; to change what a route does: {USAGE}"
                );
                return Answer::Final(refuse(400, &what));
            };
            let routes: Vec<_> = handle.named().iter().map(RouteView::new).collect();
            let shown = if json { Shown::Json(json::routes(&routes)) } else { Shown::Text(text::routes(&routes)) };
            return Answer::Shown(shown);
        }
        "POST" => {}
        method => return Answer::Final(refuse(405, &format!("`{method}` does nothing here; {USAGE}"))),
    }
    let order = match Order::read(&request.query) {
        Ok(order) => order,
        Err(what) => return Answer::Final(refuse(400, &what)),
    };
    let done = match order.verb.as_str() {
        "pause" => handle.pause(&order.route),
        "resume" => handle.resume(&order.route),
        "drain" => handle.drain(&order.route),
        verb => return Answer::Final(refuse(400, &format!("`do={verb}` is not known; {USAGE}"))),
    };
    match done {
        Ok(()) => {
            let state = handle.state(&order.route).unwrap_or(RouteState::Ended);
            Answer::Final(PageResponse::text(format!("route {} {state}\n", order.route)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound && others => Answer::NotOurs,
        Err(error) if error.kind() == ErrorKind::NotFound => Answer::Final(refuse(404, &error.to_string())),
        Err(error) => Answer::Final(refuse(409, &error.to_string())),
    }
}

impl Order {
    fn read(query: &str) -> Result<Self, String> {
        let (mut route, mut verb) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "route" => &mut route,
                "do" => &mut verb,
                _ => return Err(format!("`{name}` is not known; {USAGE}")),
            };
            let Some(value) = decode(value) else {
                return Err(format!("a percent-escape in `{name}` is broken; {USAGE}"));
            };
            if place.replace(value).is_some() {
                return Err(format!("`{name}` is given twice; {USAGE}"));
            }
        }
        let missing = |name: &str| format!("`{name}` is missing; {USAGE}");
        Ok(Self { route: route.ok_or_else(|| missing("route"))?, verb: verb.ok_or_else(|| missing("do"))? })
    }
}

fn refuse(status: u16, what: &str) -> PageResponse {
    PageResponse::text(format!("{what}\n")).with_status(status)
}
