//! `go tool pprof` against the built daemon.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::http::Connection;

/// How long it may take until a function of the example has been seen. A busy machine gives little CPU time.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn go_tool_pprof_names_the_functions_of_the_example() {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("SKIPPED: there is no go tool pprof here");
        return;
    }
    let daemon = Daemon::start(&[("ENABLE_PPROF", "true"), ("RUST_LOG", "info,orders=warn")]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..4 {
            let (done, addr) = (&done, daemon.http);
            scope.spawn(move || {
                let mut connection = Connection::open(addr).unwrap();
                for n in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    assert_eq!(connection.order(&format!("{client}-{n}"), 1).unwrap().status, 202);
                }
            });
        }
        let seen = named(&daemon, "profile?seconds=3", "orders::create", "orders::ship");
        let heap = cfg!(feature = "jemalloc").then(|| named(&daemon, "heap", "orders::book::Book::accept", ""));
        done.store(true, Ordering::Relaxed);
        seen.unwrap();
        heap.unwrap_or(Ok(())).unwrap();
    });
    daemon.signal("TERM");
    assert_eq!(daemon.end().code, Some(0));
}

/// Has Go's tool fetch a profile again and again, until it names these functions.
fn named(daemon: &Daemon, page: &str, first: &str, second: &str) -> Result<(), String> {
    let url = format!("http://{}/debug/pprof/{page}", daemon.admin);
    let directory = tempfile::tempdir().unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut go = Command::new("go");
        go.args(["tool", "pprof", "-top", "-cum", "-nodecount=2000", &url]).env("PPROF_TMPDIR", directory.path());
        let output = go.output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(format!("{said}\n{complained}"));
        }
        if said.contains(first) && said.contains(second) {
            // The name stands in the sixth column. Whose method it is, must not be left out of it.
            let shortened =
                said.lines().find(|line| line.split_whitespace().nth(5).is_some_and(|n| n.starts_with("::")));
            return shortened.map_or(Ok(()), |line| Err(format!("a shortened name: {line}")));
        }
        if Instant::now() > until {
            return Err(format!("{first} and {second} were not both seen; the last profile:\n{said}"));
        }
    }
}
