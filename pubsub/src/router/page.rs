//! `/debug/pubsub`: what is in flight now, and the switches of the routes.

use std::fmt::{self, Write};

use mainspring_daemon::{Context, PageRequest, PageResponse};
use tokio::time::Instant;

use super::handle::RouterHandle;
use super::ledger::{Doing, Held, Running};
use super::route_state::RouteState;
use super::shared::Shared;
use crate::ErrorKind;
use crate::driver::PartitionProgress;
use crate::url::decode;

const PATH: &str = "/debug/pubsub";

/// Messages of each sort that are listed; more are counted.
const LISTED: usize = 100;

const USAGE: &str = "POST /debug/pubsub?route=<name>&do=pause, or do=resume, or do=drain";

/// Runs of open messages that are listed for a partition.
const LISTED_GAPS: usize = 8;

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
                    response.body.push_str(&own);
                    response
                }
                (Answer::Shown(own), None) => PageResponse::text(own),
            }
        }
    });
}

/// What one router has to say to a request.
enum Answer {
    Shown(String),
    Final(PageResponse),
    /// The order is for a route of another router.
    NotOurs,
}

fn answer(request: &PageRequest, handle: &RouterHandle, others: bool) -> Answer {
    match request.method.as_str() {
        "GET" | "HEAD" | "" if request.query.is_empty() => return Answer::Shown(render(handle)),
        "GET" | "HEAD" | "" => {
            let what = format!("reading this page takes no query; to change what a route does: {USAGE}");
            return Answer::Final(refuse(400, &what));
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

fn render(handle: &RouterHandle) -> String {
    let mut out = String::new();
    for route in handle.views() {
        render_route(&mut out, &route);
    }
    out
}

fn render_route(out: &mut String, route: &Shared) {
    let (held, now) = (route.board.snapshot(), Instant::now());
    let (running, ready) = (held.running.len(), held.ready.len());
    let (behind, delayed) = (held.behind.len(), held.delayed.len());
    let source = &route.source;
    let group = source.group.as_deref().map(|group| format!("?group={group}")).unwrap_or_default();
    let state = match route.board.gate.state() {
        RouteState::Paused => ", paused",
        RouteState::Draining | RouteState::Ended => ", draining",
        RouteState::Running if route.board.is_draining() => ", stopping",
        RouteState::Running => "",
    };
    let bytes = held.bytes;
    line(out, format_args!("route {}: {}://{}{group}{state}", route.route, source.system, source.destination));
    line(
        out,
        format_args!(
            "  {running} running, {ready} ready, {behind} behind their key, {delayed} waiting for a retry, {bytes} bytes"
        ),
    );
    for partition in route.progress.iter().flat_map(|progress| progress.partitions()) {
        line(out, format_args!("  {}", Shown(&partition)));
    }
    for (lane, job) in held.running.iter().take(LISTED) {
        at_work(out, now, *lane, job, route.in_batches);
    }
    for (due, job) in held.delayed.iter().take(LISTED) {
        waiting(out, now, job, format_args!("retry in {:.1?}", due.saturating_duration_since(now)));
    }
    let what_for = if route.board.gate.is_paused() { "waits for the route to be resumed" } else { "waits for a lane" };
    for job in held.ready.iter().take(LISTED) {
        waiting(out, now, job, format_args!("{what_for}"));
    }
    for job in held.behind.iter().take(LISTED) {
        waiting(out, now, job, format_args!("waits behind its key"));
    }
}

fn at_work(out: &mut String, now: Instant, lane: usize, job: &Running, in_batches: bool) {
    let (id, attempt) = (&job.id, job.attempt);
    let doing = match job.doing {
        Doing::Held if in_batches => "waits for its batch",
        Doing::Held => "held back by a layer",
        Doing::Handling => "running",
        Doing::Burying => "dead letter",
    };
    let (since, age) = (now - job.since, now - job.received);
    let lease = lease_left(now, job.lease);
    line(out, format_args!("  {id} attempt {attempt} lane {lane} {doing} for {since:.1?}, age {age:.1?}{lease}"));
}

fn waiting(out: &mut String, now: Instant, job: &Held, why: std::fmt::Arguments<'_>) {
    let (id, attempt, age) = (&job.id, job.attempt, now - job.received);
    let lease = lease_left(now, job.lease);
    line(out, format_args!("  {id} attempt {attempt} {why}, age {age:.1?}{lease}"));
}

/// A partition on one line.
struct Shown<'a>(&'a PartitionProgress);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartitionProgress { partition, committed, low, high, gaps, .. } = self.0;
        write!(f, "partition {partition}:")?;
        for (name, offset) in [("committed", committed), ("low", low), ("high", high)] {
            match offset {
                Some(offset) => write!(f, " {name} {offset},")?,
                None => write!(f, " {name} -,")?,
            }
        }
        if gaps.is_empty() {
            return f.write_str(" nothing open");
        }
        f.write_str(" open")?;
        for (at, (first, last)) in gaps.iter().take(LISTED_GAPS).enumerate() {
            f.write_str(if at == 0 { " " } else { ", " })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        if gaps.len() > LISTED_GAPS { f.write_str(", …") } else { Ok(()) }
    }
}

fn lease_left(now: Instant, lease: Option<Instant>) -> String {
    match lease {
        None => String::new(),
        Some(expires) if expires <= now => ", lease is over".to_owned(),
        Some(expires) => format!(", lease left {:.1?}", expires - now),
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}
