//! The built command, as a test runs it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that is going to happen, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The command, with nothing of the surroundings that could configure it.
pub fn mainspring(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainspring"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it with this standard input, to its end.
pub fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = mainspring(args).stdin(Stdio::piped()).spawn().unwrap();
    let (id, input, (sender, ended)) = (child.id(), input.to_vec(), mpsc::channel());
    thread::spawn(move || {
        // It need not read all of it.
        let _ = child.stdin.take().unwrap().write_all(&input);
        sender.send(child.wait_with_output())
    });
    let ended = ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
        panic!("it does not end: {args:?}")
    });
    ended.unwrap()
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
pub fn ends(output: &Output, code: i32, stdout: &str, complains_of: &[&str]) {
    let (out, err) = (out(output), err(output));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    assert_eq!(out, stdout, "stderr: {err}");
    assert_eq!(err.is_empty(), complains_of.is_empty(), "stderr: {err}");
    for word in complains_of {
        assert!(err.contains(word), "`{word}` is not in: {err}");
    }
}

/// Sends SIGINT until the process has set up its handlers and ends; before that, the signal would just kill it.
pub fn interrupt(mut child: Child) -> Output {
    let id = child.id();
    wait_until_it_listens(id);
    let sent = Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap();
    assert!(sent.success());
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE, "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// Waits until SIGINT is among the signals that the process catches.
fn wait_until_it_listens(id: u32) {
    let started = Instant::now();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        if caught & 0b10 != 0 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "it never listens for SIGINT");
        thread::sleep(Duration::from_millis(10));
    }
}
