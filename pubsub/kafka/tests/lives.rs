//! Processes are killed, or told to stop, thirty times, and others go on where they were.

mod common;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Kafka, PATIENCE, publish};
use mainspring_pubsub::{Failure, Router, Text};
use mainspring_testing::Running;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// What a child is to read.
const URL: &str = "MAINSPRING_TEST_MEMBER";

const LIVES: usize = 30;
const KEYS: usize = 1000;
const CONCURRENCY: usize = 16;
/// Messages that a member holds at most, handled or waiting.
const IN_FLIGHT: usize = 32;
const WORK: Duration = Duration::from_millis(10);
/// Messages that a member handles, at most, between two commits a second apart.
const INTERVAL: usize = 1000 / WORK.as_millis() as usize * CONCURRENCY;

/// Not a test: what the children do. Handles until it is told to stop, and says so.
#[tokio::test]
#[ignore = "run as a child process"]
async fn member() {
    let Ok(url) = std::env::var(URL) else { return };
    let mut told = signal(SignalKind::terminate()).unwrap();
    let kafka = Kafka::up().unwrap();
    let handler = async |Text(text): Text| {
        let began = now();
        sleep(WORK).await;
        // By a clock that all processes share.
        say(&format!("done {text} {began} {}", now()));
        Ok::<_, Failure>(())
    };
    let router = Router::new().route("member", kafka.subscriber(&url).await, handler);
    let running = Running::start(router.concurrency(CONCURRENCY).prefetch(IN_FLIGHT - CONCURRENCY));
    say("ready");
    told.recv().await;
    running.stop().await;
}

/// Nanoseconds since 1970.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// What a child says: that a message is done, and when it was begun and ended; or that it is ready.
enum Said {
    Ready,
    Done { number: usize, began: u128, ended: u128 },
}

impl Said {
    fn read(line: &str) -> Option<Self> {
        let Some((_, done)) = line.rsplit_once("done ") else { return line.ends_with("ready").then_some(Self::Ready) };
        let mut words = done.split(' ');
        let (number, began, ended) = (words.next()?, words.next()?, words.next()?);
        Some(Self::Done { number: number.parse().ok()?, began: began.parse().ok()?, ended: ended.parse().ok()? })
    }
}

/// A child, and the thread that hears it.
struct Member {
    process: Child,
    hearing: Option<JoinHandle<()>>,
}

impl Member {
    /// Starts a child, which tells `said` what it does.
    fn start(url: &str, said: &Sender<Said>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["member", "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(URL, url);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let (out, said) = (BufReader::new(process.stdout.take().unwrap()), said.clone());
        let hearing = thread::spawn(move || {
            // Whoever listened may have heard enough.
            for heard in out.lines().map_while(Result::ok).filter_map(|line| Said::read(&line)) {
                let _ = said.send(heard);
            }
        });
        Self { process, hearing: Some(hearing) }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Tells the child to stop, which it has to do in order.
    fn stop(mut self) {
        self.signal("TERM");
        let status = self.process.wait().unwrap();
        assert!(status.success(), "a member ended with {status}");
        self.hear_out();
    }

    /// SIGKILL: nothing is committed, nobody says goodbye.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.hear_out();
    }

    /// What it has said before its end is heard.
    fn hear_out(&mut self) {
        self.hearing.take().unwrap().join().unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What was handled, by whomever.
struct Handled {
    said: Receiver<Said>,
    /// When each was first begun and ended.
    seen: BTreeMap<usize, (u128, u128)>,
    duplicates: usize,
    ready: usize,
}

impl Handled {
    /// Listens until `enough`.
    fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            self.hear(self.said.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("lost: nothing more after {} messages, {} duplicates", self.seen.len(), self.duplicates)
            }));
        }
    }

    /// Listens until this many more are done, or all of them.
    fn more(&mut self, count: usize, all: usize) {
        let until = (self.seen.len() + count).min(all);
        self.until(|handled| handled.seen.len() >= until);
    }

    /// Takes in what is said already.
    fn rest(&mut self) {
        while let Ok(said) = self.said.try_recv() {
            self.hear(said);
        }
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Ready => self.ready += 1,
            Said::Done { number, began, ended } => match self.seen.entry(number) {
                Entry::Vacant(place) => drop(place.insert((began, ended))),
                Entry::Occupied(_) => self.duplicates += 1,
            },
        }
    }

    /// Messages of one key were handled one after the other, whoever did.
    fn assert_ordered(&self) {
        for (number, (began, _)) in &self.seen {
            let before = number.checked_sub(KEYS).and_then(|before| self.seen.get(&before));
            assert!(
                before.is_none_or(|(_, ended)| ended <= began),
                "{number} was begun at {began}, and the one before it of its key took from {before:?}"
            );
        }
    }
}

fn listen() -> (Sender<Said>, Handled) {
    let (sender, said) = channel();
    (sender, Handled { said, seen: BTreeMap::new(), duplicates: 0, ready: 0 })
}

/// Numbers from `least` on, that go all over the place.
fn somewhere(life: usize, least: usize, spread: usize) -> usize {
    least + (life * 7_919 + 131) % spread
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_lose_nothing_and_repeat_no_more_than_was_in_flight_or_not_committed() {
    const MESSAGES: usize = 100_000;
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(24).await;
    publish(&kafka.publisher(&topic).await, MESSAGES, KEYS).await;
    let url = format!("kafka://{topic}?group={topic}");
    let (sender, mut handled) = listen();
    let mut members: VecDeque<_> = (0..3).map(|_| Member::start(&url, &sender)).collect();
    for life in 0..LIVES {
        handled.more(somewhere(life, 500, 3_000), MESSAGES);
        // The others go on with their partitions, and take over its own when the broker has noticed.
        members.pop_front().unwrap().kill();
        members.push_back(Member::start(&url, &sender));
    }
    assert!(handled.seen.len() < MESSAGES, "some were killed when nothing was left to do");
    handled.more(MESSAGES, MESSAGES);
    members.into_iter().for_each(Member::stop);
    handled.rest();
    println!("{} duplicates in {LIVES} kills over {MESSAGES} messages", handled.duplicates);
    assert!(handled.duplicates <= LIVES * (IN_FLIGHT + INTERVAL), "{}", handled.duplicates);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_stops_with_a_second_instance_lose_and_repeat_nothing() {
    const MESSAGES: usize = 50_000;
    let Some(kafka) = Kafka::up() else { return };
    let topic = kafka.topic(8).await;
    publish(&kafka.publisher(&topic).await, MESSAGES, KEYS).await;
    let url = format!("kafka://{topic}?group={topic}");
    let (sender, mut handled) = listen();
    let mut member = Member::start(&url, &sender);
    for life in 0..LIVES {
        handled.more(somewhere(life, 100, 800), MESSAGES);
        let next = Member::start(&url, &sender);
        handled.until(|handled| handled.ready == life + 2);
        std::mem::replace(&mut member, next).stop();
    }
    assert!(handled.seen.len() < MESSAGES, "some were stopped when nothing was left to do");
    handled.more(MESSAGES, MESSAGES);
    member.stop();
    handled.rest();
    assert_eq!(handled.duplicates, 0);
    handled.assert_ordered();
}
