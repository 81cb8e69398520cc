//! Binding, daemons, readiness, flushes: what surrounds the requests, from the start to the exit code.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get as on_get;
use common::{Gate, Http1, Witness, config, ms, sample, server, soon, until};
use mainspring_daemon::{BoxError, Context};
use mainspring_server::config::AdminAddr;
use mainspring_server::testing::TestApp;
use mainspring_server::{Bound, Config, Error, Phase, Policy, Service, SimpleServer};
use tokio::task::JoinSet;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn hello() -> Router {
    Router::new().route("/hello", on_get(async || "hello"))
}

/// A budget that is over soon: 900 ms for finishing, 100 ms for flushing.
fn quick(config: &mut Config) {
    config.shutdown.budget = ms(1000).into();
    config.shutdown.last_call = ms(100).into();
    config.http.request_timeout = ms(900).into();
    config.http.addr = ANY;
    config.admin.addr = AdminAddr(Some(ANY));
}

/// Runs a server as a process would, until it ends by itself or is asked to.
fn run(bound: Bound) -> (JoinSet<Result<(), Error>>, tokio::sync::oneshot::Sender<()>) {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut running = JoinSet::new();
    running.spawn(bound.run(async {
        // A test that drops its end has stopped asking.
        let _ = stopped.await;
    }));
    (running, stop)
}

async fn result(mut running: JoinSet<Result<(), Error>>) -> Result<(), Error> {
    soon("the end", running.join_next()).await.unwrap().unwrap()
}

fn panics() -> Result<(), BoxError> {
    panic!("the sky fell")
}

async fn fails() -> Result<(), BoxError> {
    Err("no broker".into())
}

// Binding.

#[test]
fn all_ports_that_are_taken_are_named_and_the_code_is_69() {
    let (one, two) = (TcpListener::bind(ANY).unwrap(), TcpListener::bind(ANY).unwrap());
    let (one, two) =
        (one.local_addr().map(|addr| (one, addr)).unwrap(), two.local_addr().map(|addr| (two, addr)).unwrap());
    let bind = |http, admin| {
        let config = config(|config| {
            config.http.addr = http;
            config.admin.addr = AdminAddr(Some(admin));
        });
        server(config, hello()).bind()
    };
    let error = bind(one.1, two.1).unwrap_err();
    assert_eq!(error.code(), 69);
    for said in ["http.addr", &one.1.to_string(), "admin.addr", &two.1.to_string(), "another process"] {
        assert!(error.to_string().contains(said), "{said} in {error}");
    }
    // One that is free is not kept.
    let free = TcpListener::bind(ANY).unwrap().local_addr().unwrap();
    for error in [bind(one.1, free).unwrap_err(), bind(free, two.1).unwrap_err()] {
        assert_eq!(error.code(), 69);
        assert!(!error.to_string().contains(&free.to_string()), "{error}");
        assert!(std::net::TcpStream::connect(free).is_err(), "nothing is left listening");
        drop(TcpListener::bind(free).unwrap());
    }
}

#[tokio::test]
async fn a_server_that_is_bound_but_never_run_gives_its_ports_back() {
    let bound = server(config(quick), hello()).bind().unwrap();
    let (http, admin) = (bound.http_addr().unwrap(), bound.admin_addr().unwrap());
    assert!(http.port() != 0 && admin.port() != 0);
    drop(bound);
    drop((TcpListener::bind(http).unwrap(), TcpListener::bind(admin).unwrap()));
}

#[test]
fn without_an_admin_listener_there_is_one_port() {
    let config = config(|config| {
        quick(config);
        config.admin.addr = AdminAddr(None);
    });
    let bound = server(config, hello()).bind().unwrap();
    assert!(bound.admin_addr().is_none() && bound.http_addr().is_some());
}

struct Misspelt;

impl Service for Misspelt {
    const NAME: &'static str = "misspelt";
    const UNTIMED: &'static [&'static str] = &["/event"];

    fn routes(self: Arc<Self>) -> Router {
        Router::new().route("/events", on_get(async || "never"))
    }
}

#[test]
fn what_does_not_fit_together_is_a_78() {
    let error = SimpleServer::new(config(quick)).register(Misspelt).bind().unwrap_err();
    assert_eq!(error.code(), 78);
    assert!(error.to_string().contains("\"/event\""), "{error}");
    let faulty = config(|config| {
        quick(config);
        config.http.idle_timeout = ms(0).into();
        config.http.request_timeout = ms(2000).into();
    });
    let error = server(faulty, hello()).bind().unwrap_err();
    assert_eq!(error.code(), 78);
    assert!(error.to_string().contains("http.idle_timeout") && error.to_string().contains("http.request_timeout"));
}

// Daemons that fail.

#[tokio::test]
async fn a_critical_daemon_that_panics_ends_the_process_in_order_with_70() {
    let gate = Gate::new();
    let at_gate = gate.clone();
    let router = hello().route("/waits", on_get(async move || at_gate.pass().await));
    let (die, dying) = tokio::sync::oneshot::channel::<()>();
    let drained = Arc::new(AtomicU32::new(0));
    let other = Arc::clone(&drained);
    let bound = server(config(quick), router)
        .daemon("ship", async move |_| {
            dying.await?;
            panics()
        })
        .daemon("other", async move |cx: Context| {
            cx.shutdown().requested().await;
            other.fetch_add(1, Ordering::SeqCst);
            Ok::<_, BoxError>(())
        })
        .bind()
        .unwrap();
    let addr = bound.http_addr().unwrap();
    let (running, _stop) = run(bound);
    let mut client = Http1::connect(addr).await;
    let (answer, error) = tokio::join!(client.get("/waits"), async {
        gate.reached_by(1).await;
        die.send(()).unwrap();
        until("the drain", async || drained.load(Ordering::SeqCst) == 1).await;
        gate.open();
        result(running).await.unwrap_err()
    });
    assert_eq!(answer.unwrap().status, 200, "what was begun is finished");
    assert_eq!(error.code(), 70);
    assert!(error.to_string().contains("ship") && error.to_string().contains("the sky fell"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_may_be_restarted_is_and_the_process_goes_on() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let polls = move |cx: Context| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(run != 1, "the second time it panics");
            if run == 0 {
                fails().await?;
            }
            cx.shutdown().requested().await;
            Ok::<_, BoxError>(())
        }
    };
    let app = server(config(|_| {}), hello()).daemon_with("poll", Policy::restarting(), polls);
    let app = TestApp::in_process(app).await;
    let panics = sample(&app, "panics_total{where=\"daemon\"}").await;
    until("the third run", async || runs.load(Ordering::SeqCst) == 3).await;
    assert!(sample(&app, "panics_total{where=\"daemon\"}").await > panics);
    assert_eq!((app.phase(), sample(&app, "component_up{name=\"poll\"}").await), (Phase::Ready, 1.0));
    assert!(!app.sigterm().await.forced);
}

#[tokio::test]
async fn a_daemon_that_is_not_critical_may_die_and_a_critical_one_may_finish() {
    let app = server(config(|_| {}), hello())
        .daemon_with("cache", Policy::once(), |_| fails())
        .daemon("migrate", async |_| Ok::<_, BoxError>(()));
    let app = TestApp::in_process(app).await;
    for name in ["cache", "migrate"] {
        let up = format!("component_up{{name=\"{name}\"}}");
        until("its end", async || sample(&app, &up).await == 0.0).await;
    }
    assert_eq!(app.phase(), Phase::Ready);
    assert_eq!(app.request(common::get("/hello")).await.text(), "hello");
    let report = app.sigterm().await;
    assert!(!report.forced && report.cause == "SIGTERM", "{report:?}");
}

#[tokio::test]
async fn a_daemon_that_dies_at_the_start_ends_the_process_too() {
    let app = TestApp::in_process(server(config(|_| {}), hello()).daemon("ship", |_| fails())).await;
    let report = soon("the end", app.ended()).await;
    assert!(report.cause.contains("ship") && report.cause.contains("no broker"), "{report:?}");
}

// Readiness.

#[tokio::test]
async fn a_process_is_ready_when_nobody_holds_it_back() {
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let [subscribed, lost, found] = gates.clone();
    let ship = move |cx: Context| {
        let latch = cx.hold_ready("subscribing to orders");
        async move {
            subscribed.pass().await;
            latch.ready();
            lost.pass().await;
            latch.not_ready("the broker is gone");
            found.pass().await;
            drop(latch);
            cx.shutdown().requested().await;
            Ok::<_, BoxError>(())
        }
    };
    let bound = server(config(quick), hello()).daemon("ship", ship).bind().unwrap();
    let (http, admin) = (bound.http_addr().unwrap(), bound.admin_addr().unwrap());
    let (running, stop) = run(bound);
    let mut admin = Http1::connect(admin).await;
    let [subscribed, lost, found] = gates;

    subscribed.reached_by(1).await;
    for probe in ["/startupz", "/readyz"] {
        let answer = admin.get(probe).await.unwrap();
        assert!(answer.status == 503 && answer.text().contains("ship subscribing to orders"), "{}", answer.text());
    }
    assert_eq!(admin.get("/livez").await.unwrap().status, 200);
    let early = Http1::connect(http).await.get("/hello").await.unwrap();
    assert_eq!(early.text(), "hello", "who comes before it is ready is served");

    subscribed.open();
    lost.reached_by(1).await;
    until("ready", async || admin.get("/readyz").await.unwrap().status == 200).await;
    assert_eq!(admin.get("/startupz").await.unwrap().status, 200);

    lost.open();
    found.reached_by(1).await;
    let answer = admin.get("/readyz").await.unwrap();
    assert!(answer.status == 503 && answer.text().contains("the broker is gone"), "{}", answer.text());
    assert_eq!(admin.get("/startupz").await.unwrap().status, 200, "it has started once and for all");

    found.open();
    until("ready again", async || admin.get("/readyz").await.unwrap().status == 200).await;
    stop.send(()).unwrap();
    result(running).await.unwrap();
    assert!(admin.get("/livez").await.is_err(), "nothing answers after the end");
}

// The end of daemons, and flushes.

#[tokio::test]
async fn requests_end_before_daemons_are_told_so_and_flushes_come_last() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let say = |what: &'static str| {
        let said = Arc::clone(&said);
        move || said.lock().unwrap().push(what)
    };
    let gate = Gate::new();
    let (at_gate, answered) = (gate.clone(), say("request answered"));
    let waits = async move || {
        at_gate.pass().await;
        answered();
    };
    let (stopping, last, flushed) = (say("stop requested"), say("requests finished"), say("flushed"));
    let ship = async move |cx: Context| {
        cx.tally("deliveries_settled").add(7);
        cx.on_flush(async move || {
            flushed();
            Ok(())
        });
        cx.shutdown().requested().await;
        stopping();
        cx.shutdown().requests_finished().await;
        last();
        Ok::<_, BoxError>(())
    };
    let app = server(config(quick), hello().route("/waits", on_get(waits))).daemon("ship", ship);
    let app = TestApp::on_loopback(app).await;
    let mut client = Http1::connect(app.addr()).await;
    let (answer, report) = tokio::join!(client.get("/waits"), async {
        gate.reached_by(1).await;
        let stopping = app.begin_sigterm();
        until("the daemon to know", async || said.lock().unwrap().len() == 1).await;
        gate.open();
        soon("the end", stopping.ended()).await
    });
    answer.unwrap();
    assert_eq!(*said.lock().unwrap(), ["stop requested", "request answered", "requests finished", "flushed"]);
    assert!(!report.forced && report.unflushed.is_empty(), "{report:?}");
    assert_eq!(report.tallies, [("deliveries_settled", 7)]);
    assert_eq!(report.requests_finished, 1);
}

#[tokio::test]
async fn flushes_that_fail_or_hang_are_named() {
    let app = server(config(quick), hello());
    app.board().add_flush("failing", fails);
    app.board().add_flush("hanging", std::future::pending);
    app.board().add_flush("fine", async || Ok(()));
    let app = TestApp::in_process(app).await;
    let report = soon("the end", app.sigterm()).await;
    assert!(report.forced);
    assert_eq!(report.unflushed, ["failing: no broker", "hanging: not flushed in time"]);
}

#[tokio::test]
async fn a_daemon_that_ignores_the_shutdown_is_aborted_and_named() {
    let (witness, dropped) = Witness::new();
    let stuck = async move |_| {
        let _witness = witness;
        std::future::pending::<Result<(), BoxError>>().await
    };
    let app = TestApp::in_process(server(config(quick), hello()).daemon("stuck", stuck)).await;
    let report = soon("the end", app.sigterm()).await;
    assert!(report.forced);
    assert_eq!(report.daemons_aborted, ["stuck"]);
    dropped.await.unwrap();
}

#[tokio::test]
async fn what_is_given_up_at_the_deadline_makes_the_code_75() {
    let returns = async |cx: Context| {
        cx.shutdown().expired().await;
        cx.tally("deliveries_returned").add(3);
        Ok::<_, BoxError>(())
    };
    let (running, stop) = run(server(config(quick), hello()).daemon("ship", returns).bind().unwrap());
    stop.send(()).unwrap();
    let error = result(running).await.unwrap_err();
    assert_eq!(error.code(), 75);
    let app = TestApp::in_process(server(config(quick), hello()).daemon("ship", returns)).await;
    let report = soon("the end", app.sigterm()).await;
    assert!(report.forced && report.daemons_aborted.is_empty(), "it put down what it held: {report:?}");
    assert_eq!(report.tallies, [("deliveries_returned", 3)]);
}

#[tokio::test]
async fn dropping_a_running_server_ends_everything_it_has_begun() {
    let (witness, dropped) = Witness::new();
    let stays = async move |_| {
        let _witness = witness;
        std::future::pending::<Result<(), BoxError>>().await
    };
    let bound = server(config(quick), hello()).daemon("stays", stays).bind().unwrap();
    let (http, admin) = (bound.http_addr().unwrap(), bound.admin_addr().unwrap());
    let (mut running, _stop) = run(bound);
    let mut client = Http1::connect(http).await;
    assert_eq!(client.get("/hello").await.unwrap().text(), "hello");
    running.abort_all();
    soon("the end of the daemon", dropped).await.unwrap();
    client.ended().await;
    drop(TcpListener::bind(http).unwrap());
    until("the end of the admin listener", async || TcpListener::bind(admin).is_ok()).await;
}
