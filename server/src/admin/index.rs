//! The index page, for a person with a browser or curl.

use std::fmt::Write;

use axum::extract;
use axum::response::Html;

use super::State;

pub(super) async fn page(extract::State(state): extract::State<State>) -> Html<String> {
    let identity = &state.identity;
    let phase = state.lifecycle.phase();
    let name = escape(&identity.service);
    let mut page = format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><title>{name}</title>\n\
         <h1>{name} {} <small>{phase}</small></h1>\n<p>instance {}, {} requests in progress</p>\n<ul>\n",
        escape(&identity.version),
        escape(&identity.instance),
        state.dispatch.in_flight(),
    );
    let own = [
        ("/livez", "should the process be restarted?"),
        ("/readyz?verbose", "should it get traffic, and why not?"),
        ("/startupz", "has it started?"),
        (&*state.metrics_path, "metrics"),
        ("/-/log", "the log filter; PUT another one, ?for=5m to have it back by itself"),
        ("/-/config", "the effective configuration and where each value comes from"),
        ("/debug/pprof/", if state.pprof { "profiles" } else { "profiles; off, see pprof.enabled" }),
    ];
    let mut link = |path: &str, title: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<li><a href=\"{0}\">{0}</a> {1}", escape(path), escape(title));
    };
    for (path, title) in own {
        link(path, title);
    }
    for entry in state.board.pages() {
        link(&entry.path, &entry.title);
    }
    page.push_str("</ul>\n<p>public routes:</p>\n<ul>\n");
    for template in state.dispatch.routes().templates() {
        let _ = writeln!(page, "<li><code>{}</code>", escape(template));
    }
    page.push_str("</ul>\n</html>\n");
    Html(page)
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
