//! A running `orders`, its log, and its end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a fact may take to come true before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Daemon {
    child: Process,
    log: Arc<Log>,
    reader: JoinHandle<()>,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// A child that does not outlive a failed test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail for a process that has ended, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a daemon ended.
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
    pub(crate) events: Vec<Value>,
}

#[derive(Default)]
struct Log {
    events: Mutex<Vec<Value>>,
    came: Condvar,
    /// Taken for each line that is read.
    turn: Mutex<()>,
}

/// What a daemon that ends by itself printed.
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command with an empty environment and ports of its own.
pub(crate) fn command(env: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command
        .env_clear()
        .env("ORDERS_SERVER__HTTP__ADDR", "127.0.0.1:0")
        .env("ORDERS_SERVER__ADMIN__ADDR", "127.0.0.1:0")
        .envs(env.iter().copied())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a daemon that is expected to end by itself.
pub(crate) fn output(env: &[(&str, &str)], args: &[&str]) -> Output {
    let child = command(env, args).spawn().expect("orders can be started");
    let (id, (sender, ended)) = (child.id(), mpsc::channel());
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-s", "KILL", &id.to_string()]).status();
        panic!("the daemon does not end by itself")
    });
    let output = output.expect("orders can be waited for");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Daemon {
    /// Starts a daemon, and waits until it is ready.
    pub(crate) fn start(env: &[(&str, &str)]) -> Self {
        Self::start_with(env, &[])
    }

    /// The same with flags.
    pub(crate) fn start_with(env: &[(&str, &str)], args: &[&str]) -> Self {
        let mut child = command(env, args).stderr(Stdio::inherit()).spawn().expect("orders can be started");
        let log = Arc::new(Log::default());
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stdout.lines() {
                    let line = line.expect("the log is UTF-8");
                    let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                    log.events.lock().unwrap().push(event);
                    log.came.notify_all();
                    drop(log.turn.lock());
                }
            }
        });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut daemon = Self { child: Process(child), log, reader, http: any, admin: any };
        let listening = daemon.event(|event| event["msg"] == "listening");
        let addr = |key: &str| listening["fields"][key].as_str().expect("an address").parse().expect("an address");
        (daemon.http, daemon.admin) = (addr("http"), addr("admin"));
        daemon.event(|event| event["fields"]["phase"] == "ready");
        daemon
    }

    /// Waits for an event that `is_it`.
    pub(crate) fn event(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        let mut events = self.log.events.lock().unwrap();
        loop {
            if let Some(event) = events.iter().find(|event| is_it(event)) {
                return event.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the event did not come; the log so far: {events:#?}");
            events = self.log.came.wait_timeout(events, left).unwrap().0;
        }
    }

    /// Has nobody read the log until this is dropped.
    pub(crate) fn hold_log(&self) -> impl Drop {
        self.log.turn.lock().unwrap()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.0.id().to_string()]).status();
        assert!(status.expect("kill can be run").success());
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> End {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.0.try_wait().expect("the child can be waited for") {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = began.elapsed();
        self.reader.join().expect("every line of the log is JSON");
        let events = std::mem::take(&mut *self.log.events.lock().unwrap());
        End { code: status.code(), took, events }
    }
}

impl End {
    /// The stop report.
    pub(crate) fn report(&self) -> &Value {
        let stopped = self.events.iter().rfind(|event| event["msg"] == "stopped");
        &stopped.unwrap_or_else(|| panic!("there is no stop report: {:#?}", self.events))["fields"]
    }

    /// The errors in its log.
    pub(crate) fn errors(&self) -> Vec<&Value> {
        self.events.iter().filter(|event| event["level"] == "ERROR").collect()
    }

    /// The orders that were shipped, in order.
    pub(crate) fn shipped(&self) -> Vec<&str> {
        let shipped = self.events.iter().filter(|event| event["msg"] == "shipped");
        shipped.map(|event| event["fields"]["order"].as_str().expect("an id")).collect()
    }
}
