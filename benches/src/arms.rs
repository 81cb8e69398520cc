//! The servers that are compared. Each serves the same application on a current-thread runtime.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Path;
use axum::{Json, Router, routing::get};
use mainspring_config::Duration;
use mainspring_observe::log::{Access, Output};
use mainspring_observe::metrics;
use mainspring_server::config::{AdminAddr, LameDuck};
use mainspring_server::{Config, Service, SimpleServer};
use serde::Serialize;

use crate::gate::{self, Used};
use crate::tower;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// `axum::serve`, and nothing else.
    Bare,
    /// `SimpleServer` with everything on.
    Kit,
    /// The same with a JSON access log, written to `/dev/null`.
    KitLog,
    /// `axum::serve` with the usual layers: request id, trace, caught panics, timeout, metrics by route.
    Tower,
    /// `SimpleServer` with profiles on and [`SERIES`] series of its own.
    Watched,
}

/// What a busy service may well have: so many series make a scrape.
pub const SERIES: u32 = 10_000;

impl Arm {
    /// All of them, the reference first.
    pub const ALL: [Self; 4] = [Self::Bare, Self::Kit, Self::KitLog, Self::Tower];

    /// Those whose cost is gated, and the reference.
    pub const GATED: [Self; 3] = [Self::Bare, Self::Kit, Self::KitLog];

    /// What the table calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare axum::serve",
            Self::Kit => "SimpleServer, everything on",
            Self::KitLog => "the same with JSON access log",
            Self::Tower => "the usual tower stack, no access log",
            Self::Watched => "SimpleServer, profiled and scraped",
        }
    }

    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Kit => "kit",
            Self::KitLog => "kit-log",
            Self::Tower => "tower",
            Self::Watched => "watched",
        }
    }
}

/// Serves the arm that the first argument names: see [`serve`].
pub fn main(used: fn() -> Used) {
    let name = std::env::args().nth(1).unwrap_or_default();
    match Arm::ALL.into_iter().chain([Arm::Watched]).find(|arm| arm.name() == name) {
        Some(arm) => serve(arm, used),
        None => eprintln!("usage: serve {}|watched", Arm::ALL.map(Arm::name).join("|")),
    }
}

/// Serves an arm: prints its address, then answers each line on standard input with what `used` says, and ends with
/// standard input.
pub fn serve(arm: Arm, used: fn() -> Used) {
    std::thread::spawn(move || {
        // Without input there is nobody left to serve.
        for _ in std::io::stdin().lock().lines() {
            let Used { allocations, bytes } = gate::mark(used);
            println!("{allocations} {bytes}");
        }
        #[expect(clippy::disallowed_methods, reason = "a benchmark's server has nothing to lose")]
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(listen(arm)),
        Err(error) => eprintln!("no runtime: {error}"),
    }
}

#[derive(Serialize)]
struct Cat {
    id: u64,
    name: &'static str,
}

async fn cat(Path(id): Path<u64>) -> Json<Cat> {
    Json(Cat { id, name: "Tom" })
}

/// One route that is asked for, and twenty that are only there.
fn routes() -> Router {
    let router = Router::new().route("/cats/{id}", get(cat));
    (0..20).fold(router, |router, n| router.route(&format!("/other{n}/{{id}}"), get(cat))).with_state(())
}

struct Cats;

impl Service for Cats {
    const NAME: &'static str = "cats";

    fn routes(self: Arc<Self>) -> Router {
        routes()
    }
}

async fn listen(arm: Arm) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    if matches!(arm, Arm::Bare | Arm::Tower) {
        let listener = tokio::net::TcpListener::bind(any).await.expect("loopback can be bound");
        announce(listener.local_addr().expect("a bound socket has an address"), None);
        let router = if arm == Arm::Bare { routes() } else { tower::layered(routes()) };
        axum::serve(listener, router).await.expect("serving has no end");
        return;
    }
    let mut config = Config::default();
    config.http.addr = any;
    config.admin.addr = AdminAddr(Some(any));
    config.shutdown.lame_duck = LameDuck(Some(Duration::from_secs(0)));
    config.log.output = Output::Stderr;
    config.log.filter = "warn".to_owned();
    if arm == Arm::KitLog {
        config.log.access = Access::To(Output::File("/dev/null".into()));
    }
    if arm == Arm::Watched {
        config.pprof.enabled = true;
        config.metrics.max_series = SERIES;
        metrics::set_max_series(SERIES as usize);
        let seen = metrics::counters("cats_seen", "Cats, by their number", ["cat"]);
        for cat in 1..SERIES {
            seen.with([&cat.to_string()]).inc();
        }
    }
    let identity = mainspring_observe::Identity::new("cats", "1");
    let _log = mainspring_server::init(&config.log, &identity).expect("the log can be set up");
    let bound = SimpleServer::new(config).register(Cats).bind().expect("loopback can be bound");
    announce(bound.http_addr().expect("a bound server has an address"), bound.admin_addr());
    bound.run(std::future::pending()).await.expect("serving has no end");
}

fn announce(addr: SocketAddr, admin: Option<SocketAddr>) {
    match admin {
        Some(admin) => println!("{addr} {admin}"),
        None => println!("{addr}"),
    }
    let _ = std::io::stdout().flush();
}
