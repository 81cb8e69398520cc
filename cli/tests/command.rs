//! The built command: what it prints, and how it exits.

mod common;

use std::io::{Read, Write};
use std::process::Stdio;

use common::{ends, err, interrupt, mainspring, out, run};

#[test]
fn every_line_is_a_message() {
    ends(&run(&["publish", "memory://t"], b"one\ntwo\n\nlast without a break"), 0, "4 published, 0 failed\n", &[]);
}

#[test]
fn empty_input_publishes_nothing_and_is_no_failure() {
    ends(&run(&["publish", "memory://t"], b""), 0, "0 published, 0 failed\n", &[]);
}

#[test]
fn lines_need_not_be_text() {
    let input = b"\xff\xfe\x00\x01\nplain\r\n\x80\n";
    ends(&run(&["publish", "memory://t", "--key", "k", "--header", "a=b=c"], input), 0, "3 published, 0 failed\n", &[]);
}

#[test]
fn many_lines_are_published_whatever_the_window() {
    let input = "line\n".repeat(9_000);
    ends(&run(&["publish", "memory://t"], input.as_bytes()), 0, "9000 published, 0 failed\n", &[]);
}

#[test]
fn files_are_read_one_after_the_other_and_a_dash_is_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.txt");
    std::fs::write(&file, "a\nb\n").unwrap();
    let file = file.to_str().unwrap();
    ends(&run(&["publish", "memory://t", file, "-", file], b"c\n"), 0, "5 published, 0 failed\n", &[]);
}

#[test]
fn a_missing_file_is_told_before_anything_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["publish", "memory://t", "-", "no/such/file"], b"a\n");
    ends(&output, 78, "", &["no/such/file", "No such file"]);
    ends(&run(&["publish", "memory://t", folder.path().to_str().unwrap()], b""), 78, "", &["directory"]);
}

#[test]
fn lines_that_cannot_be_published_are_counted_and_told_by_place() {
    let input = b"{\"id\": \"A1\"}\nnot JSON\n{\"no\": 1}\n{\"id\": 7}\n";
    let output = run(&["publish", "memory://t", "--key-field", "id"], input);
    ends(
        &output,
        1,
        "2 published, 2 failed\n",
        &["standard input:2: the line is not JSON", "standard input:3:", "`id`"],
    );
}

#[test]
fn a_line_over_the_limit_fails_alone() {
    let mut input = vec![b'x'; 3 << 20];
    input.extend(b"\nshort\n");
    ends(&run(&["publish", "memory://t"], &input), 1, "1 published, 1 failed\n", &["standard input:1:", "limit"]);
}

#[test]
fn failures_are_not_told_without_end() {
    let output = run(&["publish", "memory://t", "--key-field", "id"], "x\n".repeat(500).as_bytes());
    ends(&output, 1, "0 published, 500 failed\n", &["standard input:10:", "only counted"]);
    assert_eq!(err(&output).lines().count(), 11);
}

#[test]
fn wrong_usage_is_told_with_what_is_right() {
    for (args, said) in [
        (&["publish"][..], "<URL>"),
        (&["publish", "memory://t", "--headers", "a=b"], "--header"),
        (&["publish", "memory://t", "--header", "nonsense"], "NAME=VALUE"),
        (&["publish", "memory://t", "--key", "a", "--key-field", "b"], "cannot be used with"),
        (&["publish", "orders"], "`://` is missing"),
        (&["publish", "memroy://t"], "did you mean `memory`"),
        (&["publish", "memory://t?nonsense=1"], "unknown option `nonsense`"),
        (&["publish", "sqs://t"], "no driver for `sqs`"),
        (&["tail", "memory://"], "the name is missing"),
        (&["tail", "memory://t", "-n", "0"], "0"),
        (&["verify"], "URL"),
        (&["verify", "memory://t?nonsense=1"], "unknown option `nonsense`"),
        (&["verify", "memory://t", "--case", "bodies_are_exakt"], "did you mean `bodies_are_exact`"),
        (&["verify", "memory://t", "--case", "x"], "--list"),
        (&["fly"], "fly"),
        (&["--set", "brokers.nonsense=1", "publish", "memory://t"], "nonsense"),
    ] {
        let output = run(args, b"");
        ends(&output, 78, "", &[said]);
    }
    let output = run(&["publish", "kafka://bob:hunter2@host/t?nonsense=1"], b"");
    assert_eq!(output.status.code(), Some(78));
    assert!(!err(&output).contains("hunter2"), "{}", err(&output));
}

#[test]
fn help_and_version_are_no_failures() {
    for args in [&["--help"][..], &["--version"], &["publish", "--help"], &["verify", "-h"]] {
        let output = run(args, b"");
        assert_eq!(output.status.code(), Some(0));
        assert!(!out(&output).is_empty() && err(&output).is_empty());
    }
    assert!(out(&run(&["--version"], b"")).starts_with("mainspring 0."));
}

#[test]
fn a_closed_pipe_is_no_panic() {
    for args in
        [&["publish", "memory://t"][..], &["verify", "--list"], &["verify", "memory://t", "--case", "bodies_are_exact"]]
    {
        let mut child = mainspring(args).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn an_interrupt_ends_publishing_with_the_counts() {
    let mut child = mainspring(&["publish", "memory://t"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    // The pipe stays open: only the signal can end it.
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert!(
        out(&output).ends_with(" published, 0 failed\n") && err(&output).contains("interrupted"),
        "{}",
        out(&output)
    );
    drop(input);
}

#[test]
fn an_interrupt_is_how_tailing_ends() {
    let child = mainspring(&["tail", "memory://t"]).spawn().unwrap();
    let output = interrupt(child);
    assert_eq!((output.status.code(), out(&output), err(&output)), (Some(0), String::new(), String::new()));
}

#[test]
fn an_interrupt_ends_verifying_with_what_was_found() {
    let mut child = mainspring(&["verify", "memory://t"]).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert!(out(&output).ends_with(" skipped\n") && err(&output).contains("interrupted"), "{}", out(&output));
}

#[test]
fn verify_prints_a_line_for_each_case_and_the_counts() {
    let args =
        ["verify", "memory://t", "-j1", "--case", "bodies_are_exact", "--case", "a_killed_process_loses_nothing"];
    let expected = "skip a_killed_process_loses_nothing (lives in one process)\npass bodies_are_exact\n\
                    1 passed, 0 failed, 1 skipped\n";
    ends(&run(&args, b""), 0, expected, &[]);
}

#[test]
fn verify_speaks_json() {
    let cases = ["--case", "bodies_are_exact", "--case", "a_killed_process_loses_nothing"];
    let output = run(&[&["verify", "memory://t", "-j1", "--json"][..], &cases].concat(), b"");
    let text = out(&output);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["outcome"], &lines[0]["reason"]), (&"skip".into(), &"lives in one process".into()));
    assert_eq!((&lines[1]["name"], &lines[1]["outcome"]), (&"bodies_are_exact".into(), &"pass".into()));
    assert_eq!(lines[2], serde_json::json!({"passed": 1, "failed": 0, "skipped": 1}));
}

#[test]
fn verify_lists_what_it_would_run() {
    let listed = out(&run(&["verify", "--list"], b""));
    assert!(
        listed.lines().count() > 60 && listed.contains("bodies_are_exact: Bodies come out byte for byte"),
        "{listed}"
    );
    let one = out(&run(&["verify", "--list", "--case", "bodies_are_exact", "--json"], b""));
    assert!(one.starts_with(r#"{"about":"Bodies"#) && one.lines().count() == 1, "{one}");
}
