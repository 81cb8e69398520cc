//! The built command on the real broker.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Output;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{PATIENCE, ends, err, interrupt, mainspring, out, run};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

const LINES: usize = 1_000;
const KEYS: usize = 10;

/// A broker that answers.
struct Kafka {
    address: String,
    /// The flag that says where it is.
    setting: String,
}

impl Kafka {
    /// The broker to test against. Without one the test is skipped, unless it is meant to run: then it fails.
    fn up() -> Option<Self> {
        let address = std::env::var("MAINSPRING_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".to_owned());
        if let Err(error) = TcpStream::connect(&address) {
            let required = ["CI", "MAINSPRING_REQUIRE_BROKERS"].iter().any(|name| std::env::var_os(name).is_some());
            assert!(!required, "no Kafka at {address}: {error}; start one with scripts/brokers.sh up");
            println!("SKIPPED: no Kafka at {address} ({error}); start one with scripts/brokers.sh up");
            return None;
        }
        Some(Self { setting: format!("brokers.kafka.brokers={address}"), address })
    }

    /// Arguments, with where the broker is before them.
    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["--set", &self.setting], args].concat()
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        run(&self.args(args), input)
    }

    /// What `tail` prints, which is as much as it was asked for.
    fn tail(&self, url: &str, count: usize) -> Vec<Value> {
        let output = self.run(&["tail", url, "--json", "-n", &count.to_string()], b"");
        assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()));
        let lines: Vec<Value> = out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), count);
        lines
    }

    /// The topics whose names begin like this.
    fn topics(&self, prefix: &str) -> Vec<String> {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap();
        let known = client.fetch_metadata(None, PATIENCE).unwrap();
        known.topics().iter().map(|topic| topic.name().to_owned()).filter(|name| name.starts_with(prefix)).collect()
    }

    /// The groups that have committed something and have no members.
    fn groups(&self) -> BTreeSet<String> {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap();
        let known = client.fetch_group_list(None, PATIENCE).unwrap();
        let empty = known.groups().iter().filter(|group| group.members().is_empty());
        empty.map(|group| group.name().to_owned()).collect()
    }

    /// Waits until no topic's name begins like this: the broker removes them in its own time.
    fn assert_no_topics(&self, prefix: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.topics(prefix);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "topics are left behind: {left:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A name that nothing has had before.
fn unique(what: &str) -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{what}-{nanos}-{}", std::process::id())
}

/// The numbers that messages carry.
fn numbers(messages: &[Value]) -> BTreeSet<u64> {
    messages.iter().map(number).collect()
}

fn number(message: &Value) -> u64 {
    let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
    body["n"].as_u64().unwrap()
}

#[test]
fn what_is_published_is_tailed_and_a_group_goes_on_where_it_was() {
    let Some(kafka) = Kafka::up() else { return };
    let url = format!("kafka://{}", unique("tailed"));
    let input: String =
        (0..LINES).map(|n| format!("{}\n", json!({"id": format!("key {}", n % KEYS), "n": n}))).collect();
    let published = kafka.run(&["publish", &url, "--key-field", "id", "--header", "from=test"], input.as_bytes());
    ends(&published, 0, "1000 published, 0 failed\n", &[]);

    // One group, in two goes: what was printed is acked, and what was not is left to the next.
    let group = format!("{url}?group={}", unique("g"));
    let (first, second) = (kafka.tail(&group, 300), kafka.tail(&group, LINES - 300));
    let all = [first, second].concat();
    assert_eq!(numbers(&all), (0..LINES as u64).collect(), "each came once");
    let mut last = BTreeMap::new();
    for message in &all {
        let (key, number) = (message["key"].as_str().unwrap(), number(message));
        assert_eq!(key, format!("key {}", number % KEYS as u64));
        assert_eq!((&message["attributes"]["from"], &message["attempt"]), (&"test".into(), &1.into()));
        let before = last.insert(key, number);
        assert!(before < Some(number), "{number} came after {before:?}");
    }

    // A group of its own takes nothing from anybody, and has everything; it is gone with the command.
    let before = kafka.groups();
    let output = kafka.run(&["tail", &url, "-n", &LINES.to_string()], b"");
    assert_eq!((output.status.code(), out(&output).lines().count(), err(&output)), (Some(0), LINES, String::new()));
    assert!(out(&output).lines().all(|line| line.contains(" key=key ") && line.contains(" from=test ")));
    let left: Vec<_> = kafka.groups().difference(&before).cloned().collect();
    assert!(!left.iter().any(|group| group.starts_with("mainspring-tail-")), "{left:?}");
}

#[test]
fn what_cannot_be_reached_is_told_with_69() {
    let Some(kafka) = Kafka::up() else { return };
    // A port for which one needs rights that nobody has given to anyone.
    let closed = "kafka://127.0.0.1:1/orders?grace=1s";
    for command in ["tail", "verify"] {
        ends(&run(&[command, closed], b""), 69, "", &["127.0.0.1:1", "Connection refused"]);
    }
    let lines = run(&["publish", closed], b"x\ny\n");
    ends(&lines, 1, "0 published, 2 failed\n", &["127.0.0.1:1", "Connection refused"]);
    let nothing = run(&["publish", closed], b"");
    ends(&nothing, 69, "0 published, 0 failed\n", &["127.0.0.1:1", "Connection refused"]);
    let topic = unique("missing");
    let output = kafka.run(&["tail", &format!("kafka://{topic}?grace=1s")], b"");
    ends(&output, 69, "", &[&format!("there is no topic `{topic}` at {}", kafka.address)]);
}

#[test]
fn whoever_cannot_wait_for_a_broker_that_does_not_answer_may_interrupt() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("kafka://{}/orders?grace=60s", silent.local_addr().unwrap());
    for (command, code) in [("publish", 130), ("tail", 0), ("verify", 130)] {
        let child = mainspring(&[command, &url]).spawn().unwrap();
        let (_connection, _) = silent.accept().unwrap();
        let output = interrupt(child);
        assert_eq!((output.status.code(), out(&output)), (Some(code), String::new()), "{command}: {}", err(&output));
    }
}

#[test]
fn verify_passes_with_processes_and_dead_letters_and_leaves_no_topic_behind() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = unique("verified");
    let cases = [
        "bodies_are_exact",
        "receiving_from_a_missing_topic_fails",
        "poison_does_not_harm_its_neighbours",
        // Its consumers are this command, started again.
        "a_stopped_process_repeats_nothing",
    ];
    let url = format!("kafka://{topic}?group=left-out");
    let args: Vec<_> = ["verify", &url].into_iter().chain(cases.iter().flat_map(|case| ["--case", case])).collect();
    let output = kafka.run(&args, b"");
    let said = out(&output);
    assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()), "{said}");
    let lines: BTreeSet<_> = said.lines().collect();
    let passed = cases.map(|case| format!("pass {case}"));
    let expected: BTreeSet<_> = passed.iter().map(String::as_str).chain(["4 passed, 0 failed, 0 skipped"]).collect();
    assert_eq!(lines, expected);
    kafka.assert_no_topics(&topic);
}

#[test]
fn an_interrupted_verify_leaves_no_topic_behind() {
    let Some(kafka) = Kafka::up() else { return };
    let topic = unique("interrupted");
    let mut child = mainspring(&kafka.args(&["verify", &format!("kafka://{topic}")])).spawn().unwrap();
    // A case is done, others are at work.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert!(!kafka.topics(&topic).is_empty(), "the suite has topics of its own");
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert!(out(&output).ends_with(" skipped\n") && err(&output).contains("interrupted"), "{}", out(&output));
    kafka.assert_no_topics(&topic);
}
