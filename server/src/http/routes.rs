//! The route templates of a router, and what is known of each before the first request.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::RouteMetrics;

/// All routes of a listener, and a lookup that follows axum's own rules (`matchit`, the same version).
///
/// The lookup is ours because a layer inside the router would cost each request two boxes to learn the same thing.
pub(crate) struct Routes {
    tree: matchit::Router<usize>,
    table: Vec<Route>,
}

/// What is known of a route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) template: Arc<str>,
    /// How long a request may take; `None` for a route that was exempted.
    pub(crate) timeout: Option<Duration>,
    /// Answered even when `max_in_flight` is reached: a load balancer must not take a busy process for a dead one.
    pub(crate) vital: bool,
    pub(crate) metrics: RouteMetrics,
}

/// The label of requests that no route matches.
const UNMATCHED: &str = "__404__";

impl Routes {
    /// Reads the templates of `router`. `untimed` lists templates whose requests have no timeout, `vital` those
    /// that are never shed. The error names an untimed one that the router does not have.
    pub(crate) fn of(
        router: &axum::Router,
        timeout: Duration,
        untimed: &[&str],
        vital: &[String],
    ) -> Result<Self, String> {
        let templates = templates(router);
        if let Some(unknown) = untimed.iter().find(|path| !templates.iter().any(|template| template == *path)) {
            let known = if templates.is_empty() { "none".to_owned() } else { templates.join(", ") };
            return Err(format!("UNTIMED names the route {unknown:?}, which does not exist; the routes are: {known}"));
        }
        let mut tree = matchit::Router::new();
        let route = |template: &str| Route {
            template: template.into(),
            timeout: (!untimed.contains(&template)).then_some(timeout),
            vital: vital.iter().any(|path| path == template),
            metrics: RouteMetrics::new(template.into()),
        };
        let mut table = vec![route(UNMATCHED)];
        for template in templates {
            // axum refuses conflicting routes when they are added, so nothing can be refused here.
            if tree.insert(template.as_str(), table.len()).is_ok() {
                table.push(route(&template));
            }
        }
        Ok(Self { tree, table })
    }

    /// The place of the route that `path` leads to; place 0 stands for none.
    pub(crate) fn find(&self, path: &str) -> usize {
        self.tree.at(path).map_or(0, |found| *found.value)
    }

    pub(crate) fn get(&self, place: usize) -> &Route {
        &self.table[place]
    }

    /// All templates, for the start-up log and the index page.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &str> {
        self.table[1..].iter().map(|route| &*route.template)
    }
}

/// The templates of a router.
///
/// axum has no accessor for them, but prints them with `{:?}`, nested routers flattened. That is no contract, so a
/// test holds it against the axum we build with; if it ever fails to parse, requests are counted as unmatched.
pub(crate) fn templates(router: &axum::Router) -> Vec<String> {
    let printed = format!("{router:?}");
    let mut templates = Vec::new();
    // Only the first such list: those behind it belong to fallbacks.
    let Some((_, mut rest)) = printed.split_once("Node { paths: {") else { return templates };
    while let Some(open) = rest.find(['"', '}']) {
        if rest.as_bytes()[open] == b'}' {
            break;
        }
        let literal = &rest[open..];
        let Some(end) = end_of_literal(literal) else { break };
        if let Ok(template) = serde_json::from_str::<String>(&literal[..=end])
            && !template.contains("{*__private__axum")
        {
            templates.push(template);
        }
        rest = &literal[end + 1..];
    }
    templates.sort();
    templates
}

/// Where the string literal at the start of `text` ends.
fn end_of_literal(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.templates()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;

    async fn ok() {}

    fn routes(router: &Router) -> Routes {
        Routes::of(router, Duration::from_secs(1), &[], &[]).unwrap()
    }

    #[test]
    fn every_template_is_found_whatever_the_router_was_made_of() {
        let inner = Router::new().route("/", get(ok)).route("/{id}", get(ok).post(ok)).fallback(ok);
        let router = Router::new()
            .route("/orders", get(ok))
            .route("/files/{*rest}", get(ok))
            .route("/quoted/\"x\"", get(ok))
            .nest("/cats", inner)
            .merge(Router::new().route("/merged/{a}/{b}", get(ok)))
            .with_state(());
        let templates: Vec<_> = routes(&router).templates().map(str::to_owned).collect();
        assert_eq!(templates, ["/cats", "/cats/{id}", "/files/{*rest}", "/merged/{a}/{b}", "/orders", "/quoted/\"x\""]);
    }

    #[test]
    fn a_path_leads_to_its_template() {
        let router = Router::new().route("/orders/{id}", get(ok)).route("/orders/new", get(ok));
        let routes = routes(&router);
        assert_eq!(&*routes.get(routes.find("/orders/7")).template, "/orders/{id}");
        assert_eq!(&*routes.get(routes.find("/orders/new")).template, "/orders/new");
        assert_eq!(&*routes.get(routes.find("/nothing/here")).template, "__404__");
    }

    #[test]
    fn an_exempted_route_has_no_timeout_and_an_unknown_one_is_an_error() {
        let router = Router::new().route("/events", get(ok)).route("/orders", get(ok));
        let routes = Routes::of(&router, Duration::from_secs(1), &["/events"], &[]).unwrap();
        assert_eq!(routes.get(routes.find("/events")).timeout, None);
        assert_eq!(routes.get(routes.find("/orders")).timeout, Some(Duration::from_secs(1)));
        let error = Routes::of(&router, Duration::from_secs(1), &["/event"], &[]).unwrap_err();
        assert!(error.contains("\"/event\"") && error.contains("/events, /orders"), "{error}");
    }
}
