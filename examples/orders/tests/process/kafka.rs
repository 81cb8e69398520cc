//! On the real broker: instances that take over from each other, and what keeps one from starting.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::daemon::{Daemon, End, Output, command, output};
use crate::load::order_until_refused;

/// Instances that are stopped while the next one is at work already.
const INSTANCES: u64 = 4;
const CLIENTS: u64 = 4;

/// How long an instance tries to reach the broker, and how much longer its end may take on a busy machine.
const GRACE: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(10);

#[test]
fn instances_that_take_over_from_each_other_ship_every_order_once() {
    let Some(address) = kafka() else { return };
    // Whoever publishes first makes the topic.
    let topic = format!("kafka://{}?group=ship", unique("orders"));
    let env = [("KAFKA_BROKER_HOSTS", &*address), ("ORDERS_TOPIC", &*topic), ("ORDERS_WORK", "20ms")];
    let (mut accepted, mut shipped) = (HashSet::new(), Vec::new());
    let mut instance = Daemon::start(&env);
    for number in 0..INSTANCES {
        let (next, orders) = with_clients(instance.http, number, |answers| {
            wait_for(100, answers);
            let next = Daemon::start(&env);
            // Both are at work now: some of the partitions have moved.
            next.event(|event| event["msg"] == "shipped");
            instance.signal("TERM");
            next
        });
        let end = std::mem::replace(&mut instance, next).end();
        assert_orderly(&end, orders.len());
        shipped.extend(end.shipped().into_iter().map(str::to_owned));
        accepted.extend(orders);
    }
    let known: HashSet<_> = shipped.iter().cloned().collect();
    for left in accepted.difference(&known) {
        instance.event(|event| event["msg"] == "shipped" && event["fields"]["order"] == **left);
    }
    instance.signal("TERM");
    let end = instance.end();
    assert_orderly(&end, 0);
    shipped.extend(end.shipped().into_iter().map(str::to_owned));

    let mut once = HashSet::new();
    let twice: Vec<_> = shipped.iter().filter(|id| !once.insert((*id).clone())).collect();
    assert!(twice.is_empty(), "shipped twice, of {}: {twice:?}", shipped.len());
    assert_eq!(once, accepted, "what was accepted is what was shipped");
}

#[test]
fn a_broker_that_does_not_listen_ends_it_with_69_and_the_cause() {
    if !has_driver() {
        return skip(NO_DRIVER);
    }
    // A port for which one needs rights that nobody has given to anyone.
    let topic = format!("kafka://127.0.0.1:1/orders?group=ship&grace={}s", GRACE.as_secs());
    let said = unavailable(&[("ORDERS_TOPIC", &topic)]);
    assert!(said.contains("127.0.0.1:1") && said.contains("Connection refused"), "{said}");
}

#[test]
fn a_topic_that_is_not_there_ends_it_with_69_and_its_name() {
    let Some(address) = kafka() else { return };
    let topic = unique("missing");
    let inbox = format!("kafka://{topic}?group=ship&grace={}s", GRACE.as_secs());
    let settings =
        [("KAFKA_BROKER_HOSTS", &*address), ("ORDERS_PUBLISH", "memory://orders"), ("ORDERS_SUBSCRIBE", &*inbox)];
    let said = unavailable(&settings);
    assert!(said.contains(&format!("there is no topic `{topic}` at {address}")), "{said}");
}

#[test]
fn a_signal_while_it_waits_for_its_broker_is_a_stop_like_any_other() {
    if !has_driver() {
        return skip(NO_DRIVER);
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let topic = format!("kafka://{}/orders?group=ship&grace=60s", silent.local_addr().unwrap());
    for signal in ["TERM", "INT"] {
        let child = command(&[("ORDERS_TOPIC", &topic)], &[]).spawn().unwrap();
        let (_connection, _) = silent.accept().unwrap();
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("\"stopped\"") && said.contains(&format!("SIG{signal}")), "{said}");
    }
}

/// What an instance says that cannot start. It tries for as long as it may, and not much longer.
fn unavailable(settings: &[(&str, &str)]) -> String {
    let since = Instant::now();
    let Output { code, stdout, stderr } = output(settings, &[]);
    let (took, said) = (since.elapsed(), stdout + &stderr);
    assert_eq!(code, Some(69), "{said}");
    assert!(took >= GRACE && took < GRACE + SLACK, "{took:?}: {said}");
    assert!(!said.contains("\"ready\""), "{said}");
    said
}

/// Ended in order, with nothing given up and every request and message accounted for.
fn assert_orderly(end: &End, requests: usize) {
    let report = end.report();
    assert_eq!(end.code, Some(0), "{report:#}");
    assert_eq!((&report["forced"], &report["unflushed"]), (&false.into(), &"".into()), "{report:#}");
    assert_eq!(
        (&report["requests_finished"], &report["requests_aborted"]),
        (&requests.into(), &0.into()),
        "{report:#}"
    );
    assert_eq!(report["deliveries_settled"], end.shipped().len(), "{report:#}");
    assert!(end.errors().is_empty(), "{:#?}", end.errors());
}

/// Does `work` while clients order of the instance at `addr`, until nobody listens there. Answers the orders that were
/// accepted, too.
fn with_clients<T>(addr: SocketAddr, instance: u64, work: impl FnOnce(&AtomicU64) -> T) -> (T, HashSet<String>) {
    let answers = AtomicU64::new(0);
    let order = |client| order_until_refused(addr, instance * CLIENTS + client, &answers);
    thread::scope(|scope| {
        let order = &order;
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || order(client))).collect();
        let done = work(&answers);
        (done, clients.into_iter().flat_map(|client| client.join().unwrap()).collect())
    })
}

fn wait_for(count: u64, answers: &AtomicU64) {
    let until = Instant::now() + Duration::from_secs(20);
    while answers.load(Ordering::Relaxed) < count {
        assert!(Instant::now() < until, "no load");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Where the broker is. Without one the test is skipped, unless it is meant to run: then it fails.
fn kafka() -> Option<String> {
    let address = std::env::var("MAINSPRING_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".to_owned());
    match TcpStream::connect(&address) {
        Err(error) => skip(&format!("no Kafka at {address}: {error}; start one with scripts/brokers.sh up")),
        Ok(_) if !has_driver() => skip(NO_DRIVER),
        Ok(_) => return Some(address),
    }
    None
}

/// Whether this `orders` has the driver: it has it wherever the whole workspace is built, or `orders/kafka` is asked for.
fn has_driver() -> bool {
    let checked = output(&[("ORDERS_TOPIC", "kafka://orders?group=ship")], &["--check-config"]);
    !checked.stderr.contains("the driver of `kafka` is not in this program")
}

const NO_DRIVER: &str = "this `orders` was built without its feature `kafka`";

fn skip(why: &str) {
    let required = ["CI", "MAINSPRING_REQUIRE_BROKERS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!required, "{why}");
    println!("SKIPPED: {why}");
}

/// A name that nothing has had before.
fn unique(what: &str) -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{what}-{nanos}-{}", std::process::id())
}
