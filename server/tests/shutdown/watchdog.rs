//! A process whose runtime does not answer any more.

use std::process::Stdio;

use mainspring_server::SimpleServer;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use super::common::Plain;
use super::*;

/// Set in the process that is to be stopped.
const CHILD: &str = "MAINSPRING_TEST_WATCHDOG";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_process_whose_workers_are_all_busy_is_ended_at_the_budget_and_says_what_that_cuts_off() {
    if std::env::var_os(CHILD).is_some() {
        return serve_until_killed().await;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("watchdog::a_process_whose_workers_are_all_busy_is_ended_at_the_budget_and_says_what_that_cuts_off")
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listening = event(&mut lines, "listening").await;
    let addr = listening["fields"]["http"].as_str().unwrap().parse().unwrap();
    let mut client = Raw::connect(addr).await;
    client.send("GET /stubborn HTTP/1.1\r\nhost: test\r\n\r\n").await;
    event(&mut lines, "holding on to the only worker").await;
    let began = Instant::now();
    let killed = Command::new("kill").args(["-TERM", &child.id().unwrap().to_string()]).status().await.unwrap();
    assert!(killed.success());
    let stopped = event(&mut lines, "stopped").await;
    assert_eq!(soon("the child's end", child.wait()).await.unwrap().code(), Some(75));
    assert!(began.elapsed() >= BUDGET, "{:?} with a budget of {BUDGET:?}", began.elapsed());
    assert!(stopped.to_string().contains(" /stubborn "), "{stopped}");
    assert_eq!(stopped["fields"]["forced"], true, "{stopped}");
}

async fn serve_until_killed() {
    let stubborn = async || {
        tracing::info!("holding on to the only worker");
        std::thread::sleep(Duration::from_secs(60));
    };
    let mut config = Config::default();
    quick(&mut config);
    config.http.addr = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.addr.0 = None;
    config.shutdown.lame_duck = LameDuck(Some(Duration::ZERO.into()));
    SimpleServer::new(config).register(Plain(hello().route("/stubborn", on_get(stubborn)))).run().await.unwrap();
}

/// The next event that says this. The test harness writes to the same output.
async fn event(lines: &mut Lines<BufReader<ChildStdout>>, says: &str) -> serde_json::Value {
    loop {
        let line = soon(says, lines.next_line()).await.unwrap().unwrap_or_else(|| panic!("no event {says:?}"));
        let event = line.find('{').and_then(|at| serde_json::from_str::<serde_json::Value>(&line[at..]).ok());
        if let Some(event) = event.filter(|event| event["msg"] == says) {
            return event;
        }
    }
}
