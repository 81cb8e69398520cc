//! `/debug/pprof/`: profiles, at the paths where `go tool pprof` and continuous profilers look for them.
//!
//! Off unless `pprof.enabled`: a profile costs a little CPU while it runs and shows how the program is built.

mod command_line;
mod wanted;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{self, RawQuery};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use mainspring_observe::profile::cpu::{self, Recording};
use mainspring_observe::profile::{Profile, Refusal, heap, symbolize, threads};
use mainspring_web::Problem;

use super::State;
use super::index::escape;
use command_line::masked;
use wanted::{Format, Wanted};

/// What there is, and what it is for.
const PAGES: [(&str, &str); 7] = [
    ("profile", "CPU profile; ?seconds=30 (1 to 300), ?hz=99 (1 to 250), ?format=pprof, folded or svg"),
    ("heap", "memory in use by who allocated it; ?seconds=N for what changed in that time, ?format= as above"),
    ("threads", "threads, their state and CPU time"),
    ("tasks", "the kit's own tasks: age, polls, and whether one blocks right now"),
    ("cmdline", "the command line, values of --set and secrets masked"),
    ("symbol", "names for addresses: POST 0x1234+0x5678"),
    ("goroutine", "the same as tasks, under the name that Go's tools know"),
];

/// What Go's tools ask for and this process cannot tell.
const ABSENT: [(&str, &str); 4] = [
    ("allocs", "jemalloc knows what is held, not what was freed: use heap, or heap?seconds=30 for what changes"),
    ("block", "there is no record of who waited for whom; tasks shows what blocks now"),
    ("mutex", "there is no record of who waited for a lock; a CPU profile shows spinning, tasks what blocks now"),
    ("trace", "there is no execution trace; use spans, or tokio-console in a build of your own"),
];

/// These take as long as they are asked to.
pub(crate) const UNTIMED: [&str; 2] = ["/debug/pprof/profile", "/debug/pprof/heap"];

/// More names than any tool asks for at once.
const MOST_ADDRESSES: usize = 4096;

/// The routes, whether they answer or only say how to turn them on.
pub(super) fn routes(enabled: bool) -> Router<State> {
    if !enabled {
        let paths = PAGES.iter().chain(&ABSENT).map(|(name, _)| path(name));
        return paths
            .chain(["/debug/pprof".to_owned(), path("")])
            .fold(Router::new(), |router, path| router.route(&path, any(off)));
    }
    let router = Router::new()
        .route("/debug/pprof", get(index))
        .route("/debug/pprof/", get(index))
        .route("/debug/pprof/profile", get(profile))
        .route("/debug/pprof/heap", get(heap_profile))
        .route("/debug/pprof/threads", get(list_threads))
        .route("/debug/pprof/tasks", get(list_tasks))
        .route("/debug/pprof/goroutine", get(list_tasks))
        .route("/debug/pprof/cmdline", get(command_line))
        .route("/debug/pprof/symbol", get(symbols_asked).post(symbols));
    ABSENT.iter().fold(router, |router, (name, why)| {
        router.route(&path(name), get(async || Problem::new(StatusCode::NOT_IMPLEMENTED).detail(*why)))
    })
}

async fn off() -> Problem {
    Problem::not_found("profiling is off; set pprof.enabled = true (or ENABLE_PPROF=true) and restart the process")
}

async fn index(extract::State(state): extract::State<State>) -> Html<String> {
    let name = escape(&state.identity.service);
    let mut page = format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><title>{name} profiles</title>\n<h1>{name} profiles</h1>\n<ul>\n"
    );
    for (name, title) in PAGES {
        page.push_str(&format!("<li><a href=\"/debug/pprof/{name}\">{name}</a> {}</li>\n", escape(title)));
    }
    page.push_str("</ul>\n<p>With Go's tool:</p>\n<pre>go tool pprof -http=: http://HOST:PORT/debug/pprof/profile?seconds=30</pre>\n");
    for (what, possible) in [("CPU profiles", cpu::possible()), ("Heap profiles", heap::activate())] {
        if let Err(refusal) = possible {
            page.push_str(&format!("<p>{what} are not available: {}</p>\n", escape(&refusal.to_string())));
        }
    }
    page.push_str("</html>\n");
    Html(page)
}

/// Records for as long as asked. A client that leaves drops the response's body, and with it the recording.
async fn profile(method: Method, RawQuery(query): RawQuery) -> Response {
    let wanted = match Wanted::read(query.as_deref(), true) {
        Ok(wanted) => wanted,
        Err(problem) => return problem.into_response(),
    };
    if let Err(refusal) = cpu::possible() {
        return refused(&refusal);
    }
    if method == Method::HEAD {
        return headed("profile", wanted.format, unsaid());
    }
    let recording = match Recording::start(wanted.hz) {
        Ok(recording) => recording,
        Err(refusal) => return refused(&refusal),
    };
    later("profile", wanted.format, async move {
        tokio::time::sleep(Duration::from_secs(u64::from(wanted.seconds.unwrap_or(30)))).await;
        written("profile", wanted.format, move || recording.finish()).await
    })
}

async fn heap_profile(method: Method, RawQuery(query): RawQuery) -> Response {
    let wanted = match Wanted::read(query.as_deref(), false) {
        Ok(wanted) => wanted,
        Err(problem) => return problem.into_response(),
    };
    if let Err(refusal) = heap::activate() {
        return refused(&refusal);
    }
    if method == Method::HEAD {
        return headed("heap", wanted.format, unsaid());
    }
    let first = tokio::task::spawn_blocking(heap::snapshot).await;
    let first = match first.map_err(|_| Refusal::Failed("the snapshot panicked".to_owned())).flatten() {
        Ok(first) => first,
        Err(refusal) => return refused(&refusal),
    };
    later("heap", wanted.format, async move {
        let Some(seconds) = wanted.seconds else { return written("heap", wanted.format, || Ok(first)).await };
        tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
        written("heap", wanted.format, move || Ok(heap::delta(&first, heap::snapshot()?))).await
    })
}

async fn list_threads() -> String {
    let mut page = format!("{:>8} {:<16} state {:>10}\n", "id", "name", "cpu");
    for thread in threads() {
        let (id, name, state) = (thread.id, thread.name, thread.state);
        page.push_str(&format!("{id:>8} {name:<16} {state:<5} {:>8.2} s\n", thread.cpu.as_secs_f64()));
    }
    page
}

async fn list_tasks(extract::State(state): extract::State<State>) -> String {
    format!(
        "{}\n{} connections open, {} requests in progress\n",
        state.tasks,
        state.metrics.connections.get(),
        state.dispatch.in_flight()
    )
}

async fn command_line() -> String {
    masked(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())).join("\0")
}

/// What Go's tool asks first: whether there are symbols at all. With addresses it is answered like a POST.
async fn symbols_asked(RawQuery(query): RawQuery) -> Response {
    match query.filter(|query| !query.is_empty()) {
        Some(query) => symbols(query).await,
        None => "num_symbols: 1\n".into_response(),
    }
}

async fn symbols(body: String) -> Response {
    let addresses: Result<Vec<usize>, _> =
        body.trim().split('+').map(|word| usize::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16)).collect();
    let addresses = match addresses {
        Ok(addresses) if addresses.len() <= MOST_ADDRESSES => addresses,
        Ok(_) => return Problem::bad_request(format!("more than {MOST_ADDRESSES} addresses")).into_response(),
        Err(_) => {
            return Problem::bad_request("expected hexadecimal addresses such as 0x1234+0x5678").into_response();
        }
    };
    let named = tokio::task::spawn_blocking(move || {
        let known = symbolize(addresses.iter().copied());
        let line = |address: &usize| {
            let names: Vec<_> = known.get(address)?.iter().map(|frame| &*frame.name).collect();
            (!names.is_empty()).then(|| format!("{address:#x} {}\n", names.join("--")))
        };
        addresses.iter().filter_map(line).collect::<String>()
    });
    match named.await {
        Ok(lines) => format!("num_symbols: 1\n{lines}").into_response(),
        Err(_) => Problem::internal().into_response(),
    }
}

/// Answers at once, with a body that comes when it is there: tools wait for the head of a response for not much longer
/// than the profile takes.
fn later(
    name: &str,
    format: Format,
    bytes: impl Future<Output = Result<Vec<u8>, Refusal>> + Send + 'static,
) -> Response {
    let bytes = async move {
        bytes
            .await
            .inspect_err(|refusal| tracing::error!(error = %refusal, "a profile was begun and cannot be finished"))
    };
    headed(name, format, Body::from_stream(futures_util::stream::once(bytes)))
}

/// Makes a profile and writes it down, on a thread that may block.
async fn written(
    name: &'static str,
    format: Format,
    make: impl FnOnce() -> Result<Profile, Refusal> + Send + 'static,
) -> Result<Vec<u8>, Refusal> {
    let written = tokio::task::spawn_blocking(move || {
        let profile = make()?;
        Ok(match format {
            Format::Pprof => profile.pprof(),
            Format::Folded => profile.folded().into_bytes(),
            Format::Svg => profile.flame_graph(name).into_bytes(),
        })
    });
    written.await.map_err(|_| Refusal::Failed("writing the profile panicked".to_owned())).flatten()
}

fn headed(name: &str, format: Format, body: Body) -> Response {
    let kind = match format {
        Format::Pprof => "application/octet-stream",
        Format::Folded => "text/plain; charset=utf-8",
        Format::Svg => "image/svg+xml",
    };
    let mut response = ([(CONTENT_TYPE, kind)], body).into_response();
    if let (Format::Pprof, Ok(file)) = (format, HeaderValue::try_from(format!("attachment; filename=\"{name}\""))) {
        response.headers_mut().insert(CONTENT_DISPOSITION, file);
    }
    response
}

/// The body of an answer to HEAD: nothing, but of a length that is not known, as GET's is not when its head is sent.
fn unsaid() -> Body {
    Body::from_stream(futures_util::stream::empty::<Result<Vec<u8>, Refusal>>())
}

fn refused(refusal: &Refusal) -> Response {
    let problem = match refusal {
        Refusal::Busy => Problem::new(StatusCode::CONFLICT).retry_after(Duration::from_secs(30)),
        Refusal::Impossible(_) => Problem::new(StatusCode::NOT_IMPLEMENTED),
        _ => Problem::new(StatusCode::INTERNAL_SERVER_ERROR),
    };
    problem.detail(refusal.to_string()).into_response()
}

fn path(name: &str) -> String {
    format!("/debug/pprof/{name}")
}
