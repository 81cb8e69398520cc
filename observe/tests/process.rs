//! What a process has only one of: each test runs this program again, as a process of its own, and looks at what it
//! says.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use mainspring_observe::correlation::{self, Correlation};
use mainspring_observe::log::{self, Access, Config, Format};
use mainspring_observe::{Identity, metrics, panics};
use serde_json::{Value as Json, json};

const DIRECTORY: &str = "MAINSPRING_OBSERVE_TEST";

/// Runs the test called `name` once more, as a child that finds [`child`] true.
fn run(name: &str, directory: &Path) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null()).output().unwrap()
}

/// Checks that the child ran its test, and that it passed.
fn passed(output: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
}

fn child() -> Option<PathBuf> {
    env::var_os(DIRECTORY).map(Into::into)
}

fn json_lines(bytes: &[u8]) -> Vec<Json> {
    let lines = std::str::from_utf8(bytes).unwrap().lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn to_file(path: &Path) -> Config {
    let output = path.display().to_string().try_into().unwrap();
    Config { format: Format::Json, output, ..Config::default() }
}

fn init(config: &Config) -> log::Guard {
    log::init(config, &Identity::new("orders", "1.0")).unwrap()
}

#[test]
fn a_panic_is_one_line_on_stderr_with_its_place_and_ids() {
    if let Some(directory) = child() {
        let _guard = init(&to_file(&directory.join("log")));
        panics::install();
        panics::install();
        let correlation = Correlation { trace: None, request_id: Some(Bytes::from_static(b"r-1")) };
        let panicked = std::thread::Builder::new().name("ship".to_owned()).spawn(move || {
            correlation::with(&correlation, || panic!("no {}\n\u{1b}[31mtea", "more"));
        });
        let payload = panicked.unwrap().join().unwrap_err();
        assert_eq!(panics::message(&*payload), "no more\n\u{1b}[31mtea");
        panics::count("daemon");
        assert!(metrics::text(&[metrics::registry()]).contains("panics_total{where=\"daemon\"} 1\n"));
        assert!(metrics::text(&[metrics::registry()]).contains("panics_total{where=\"handler\"} 0\n"));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run("a_panic_is_one_line_on_stderr_with_its_place_and_ids", directory.path());
    passed(&output);
    let lines = json_lines(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{output:?}");
    let line = &lines[0];
    assert_eq!(
        (&line["level"], &line["target"], &line["msg"]),
        (&json!("ERROR"), &json!("panic"), &json!("no more\n\u{1b}[31mtea"))
    );
    assert_eq!(
        (&line["service"], &line["request_id"], &line["fields"]["thread"]),
        (&json!("orders"), &json!("r-1"), &json!("ship"))
    );
    assert!(line["fields"]["location"].as_str().unwrap().contains("tests/process.rs:"), "{line}");
}

#[test]
fn a_panic_while_another_thread_holds_stderr_is_still_reported() {
    if child().is_some() {
        panics::install();
        let held = std::io::stderr().lock();
        assert!(std::thread::spawn(|| panic!("in the middle of a line")).join().is_err());
        drop(held);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run("a_panic_while_another_thread_holds_stderr_is_still_reported", directory.path());
    passed(&output);
    assert_eq!(json_lines(&output.stderr)[0]["msg"], "in the middle of a line");
}

#[test]
fn a_log_directory_that_was_removed_is_one_error_and_lines_go_to_stderr() {
    if let Some(directory) = child() {
        let logs = directory.join("logs");
        fs::create_dir(&logs).unwrap();
        let config = Config {
            access: Access::try_from(logs.join("access").display().to_string()).unwrap(),
            ..to_file(&logs.join("log"))
        };
        let guard = init(&config);
        tracing::info!("before");
        assert!(guard.flush(Duration::from_secs(20)));
        fs::rename(&logs, directory.join("gone")).unwrap();
        let error = guard.handle().reopen().unwrap_err();
        assert!(error.to_string().contains("logs/log cannot be opened again"), "{error}");
        tracing::info!("after");
        log::writer().unwrap().write_line(|line| line.extend_from_slice(b"{\"msg\":\"access\"}"));
        assert!(guard.flush(Duration::from_secs(20)));
        fs::create_dir(&logs).unwrap();
        guard.handle().reopen().unwrap();
        tracing::info!("mended");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run("a_log_directory_that_was_removed_is_one_error_and_lines_go_to_stderr", directory.path());
    passed(&output);
    let said: Vec<_> =
        json_lines(&output.stderr).iter().map(|line| (line["msg"].clone(), line["fields"]["path"].clone())).collect();
    let path = |name: &str| json!(directory.path().join("logs").join(name));
    let failed = json!("the log file cannot be opened again; its lines go to stderr");
    assert_eq!(said.iter().filter(|(message, _)| *message == failed).count(), 2, "{said:?}");
    for expected in [
        (failed.clone(), path("log")),
        (failed, path("access")),
        (json!("after"), Json::Null),
        (json!("access"), Json::Null),
    ] {
        assert!(said.contains(&expected), "{expected:?} is not in {said:?}");
    }
    assert_eq!(said.len(), 4);
    let read = |path: &str| json_lines(&fs::read(directory.path().join(path)).unwrap());
    assert_eq!(read("gone/log").len(), 1);
    assert_eq!(read("logs/log")[0]["msg"], "mended");
}

#[test]
fn a_full_disk_is_said_once_and_lines_go_to_stderr() {
    if child().is_some() {
        let guard = init(&to_file(Path::new("/dev/full")));
        for line in 0..3 {
            tracing::info!(line, "kept");
            assert!(guard.flush(Duration::from_secs(20)));
        }
        assert!(!metrics::text(&[metrics::registry()]).contains("log_dropped_total{reason=\"write_error\"} 3\n"));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run("a_full_disk_is_said_once_and_lines_go_to_stderr", directory.path());
    passed(&output);
    let said: Vec<_> = json_lines(&output.stderr).iter().map(|line| line["msg"].clone()).collect();
    assert_eq!(said, ["the log cannot be written; its lines go to stderr until it can", "kept", "kept", "kept"]);
}

#[test]
fn lines_that_neither_the_file_nor_stderr_takes_are_counted() {
    if child().is_some() {
        let guard = init(&to_file(Path::new("/dev/full")));
        tracing::info!("first");
        assert!(guard.flush(Duration::from_secs(20)));
        tracing::info!("second");
        assert!(guard.flush(Duration::from_secs(20)));
        let text = metrics::text(&[metrics::registry()]);
        assert!(text.contains("log_dropped_total{reason=\"write_error\"} 2\n"), "{text}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "lines_that_neither_the_file_nor_stderr_takes_are_counted", "--nocapture"])
        .env(DIRECTORY, directory.path());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stderr(full).output().unwrap();
    passed(&output);
}

#[test]
fn the_first_init_counts_and_brings_the_log_crate_and_build_info() {
    if let Some(directory) = child() {
        assert!(log::handle().is_none() && log::writer().is_none() && log::flush(Duration::ZERO));
        let guard = init(&to_file(&directory.join("log")));
        let second = init(&Config { filter: "trace".to_owned(), ..to_file(&directory.join("other")) });
        assert_eq!(second.handle().filter(), "info");
        tracing_log::log::debug!("too fine");
        tracing_log::log::info!(target: "rdkafka", "from the log crate");
        guard.handle().set_filter("rdkafka=debug").unwrap();
        tracing_log::log::debug!(target: "rdkafka", "finer");
        guard.handle().set_filter("rdkafka=loud").unwrap_err();
        assert_eq!(log::handle().unwrap().filter(), "rdkafka=debug");
        assert!(guard.flush(Duration::MAX));
        let written = json_lines(&fs::read(directory.join("log")).unwrap());
        assert_eq!(written.iter().map(|line| &line["msg"]).collect::<Vec<_>>(), ["from the log crate", "finer"]);
        assert!(!directory.join("other").exists());
        assert!(metrics::text(&[metrics::registry()]).contains("build_info{service=\"orders\",version=\"1.0\"} 1\n"));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run("the_first_init_counts_and_brings_the_log_crate_and_build_info", directory.path());
    passed(&output);
}

#[test]
fn a_field_that_logs_while_it_is_formatted_makes_lines_of_its_own() {
    if let Some(directory) = child() {
        struct Chatty;
        impl std::fmt::Debug for Chatty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                correlation::with(&Correlation::default(), || tracing::info!("from within"));
                f.write_str("done")
            }
        }
        let guard = init(&to_file(&directory.join("log")));
        let correlation = Correlation { trace: None, request_id: Some(Bytes::from_static(b"r-1")) };
        correlation::with(&correlation, || {
            let span = tracing::info_span!("span", inside = ?Chatty, late = tracing::field::Empty);
            span.record("late", tracing::field::debug(Chatty));
            span.in_scope(|| tracing::info!(field = ?Chatty, "{Chatty:?}"));
        });
        drop(guard);
        let mut written = json_lines(&fs::read(directory.join("log")).unwrap());
        let last = written.pop().unwrap();
        assert_eq!((&last["msg"], &last["request_id"]), (&json!("done"), &json!("r-1")));
        assert_eq!(last["fields"], json!({"field": "done", "inside": "done", "late": "done"}));
        assert_eq!(written.iter().map(|line| &line["msg"]).collect::<Vec<_>>(), ["from within"; 4]);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run("a_field_that_logs_while_it_is_formatted_makes_lines_of_its_own", directory.path());
    passed(&output);
}

#[test]
fn stdout_that_nobody_reads_any_more_sends_lines_to_stderr_and_does_not_end_the_process() {
    if child().is_some() {
        let guard = init(&Config { format: Format::Json, ..Config::default() });
        eprintln!("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        tracing::info!("kept");
        assert!(guard.flush(Duration::from_secs(20)));
        // The harness would print its result to the closed pipe and fail; this is all the child is for.
        eprintln!("alive");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    let name = "stdout_that_nobody_reads_any_more_sends_lines_to_stderr_and_does_not_end_the_process";
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(DIRECTORY, directory.path());
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(running.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    drop(running.stdout.take());
    drop(running.stdin.take());
    stderr.read_to_string(&mut said).unwrap();
    running.wait().unwrap();
    assert!(said.lines().any(|line| line == "alive"), "{said}");
    let said: Vec<_> = json_lines(said.as_bytes()).iter().map(|line| line["msg"].clone()).collect();
    assert_eq!(said, ["the log cannot be written; its lines go to stderr until it can", "kept"]);
}
