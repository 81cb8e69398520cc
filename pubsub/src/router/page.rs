//! `/debug/pubsub`: what is in flight now.

use std::fmt::Write;
use std::sync::Weak;

use mainspring_daemon::{Context, PageResponse};
use tokio::time::Instant;

use super::board::Held;
use super::lane::Shared;

const PATH: &str = "/debug/pubsub";

/// Messages of each sort that are listed; more are counted.
const LISTED: usize = 100;

/// Puts up the page. Several routers share it: each shows what was there before, then its own routes.
pub(super) fn serve(cx: &Context, routes: impl Iterator<Item = Weak<Shared>>) {
    let routes: Vec<_> = routes.collect();
    let before = cx.board().pages().into_iter().find(|page| page.path == PATH);
    cx.page(PATH, "Messages in flight", move |request| {
        let before = before.clone();
        let own = render(&routes);
        async move {
            let mut body = match before {
                Some(before) => before.render(request).await.body,
                None => String::new(),
            };
            body.push_str(&own);
            PageResponse::text(body)
        }
    });
}

fn render(routes: &[Weak<Shared>]) -> String {
    let now = Instant::now();
    let mut out = String::new();
    for route in routes.iter().filter_map(Weak::upgrade) {
        let held = route.board.snapshot();
        let (running, ready) = (held.running.len(), held.ready.len());
        let (behind, delayed) = (held.behind.len(), held.delayed.len());
        let source = &route.source;
        let group = source.group.as_deref().map(|group| format!("?group={group}")).unwrap_or_default();
        let stopping = if route.board.is_draining() { ", stopping" } else { "" };
        line(
            &mut out,
            format_args!("route {}: {}://{}{group}{stopping}", route.route, source.system, source.destination),
        );
        line(
            &mut out,
            format_args!(
                "  {running} running, {ready} ready, {behind} behind their key, {delayed} waiting for a retry, {} bytes",
                held.bytes
            ),
        );
        for (lane, job) in held.running.iter().take(LISTED) {
            let (id, attempt) = (&job.message.id, job.attempt);
            let (doing, age) = (if job.burying { "dead letter" } else { "running" }, now - job.since);
            line(&mut out, format_args!("  {id} attempt {attempt} lane {lane} {doing} for {age:.1?}"));
        }
        for (due, job) in held.delayed.iter().take(LISTED) {
            waiting(&mut out, job, format_args!("retry in {:.1?}", due.saturating_duration_since(now)));
        }
        for job in held.ready.iter().take(LISTED) {
            waiting(&mut out, job, format_args!("waits for a lane"));
        }
        for job in held.behind.iter().take(LISTED) {
            waiting(&mut out, job, format_args!("waits behind its key"));
        }
    }
    out
}

fn waiting(out: &mut String, job: &Held, why: std::fmt::Arguments<'_>) {
    line(out, format_args!("  {} attempt {} {why}", job.message.id, job.attempt));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}
