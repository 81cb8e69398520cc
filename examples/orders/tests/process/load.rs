//! SIGTERM under load: no request that was sent on a working connection may fail, no accepted order may be lost.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::http::Connection;

const CLIENTS: u64 = 16;
/// Together 2 000 requests a second.
const PACE: Duration = Duration::from_millis(8);

#[test]
fn a_stop_under_load_fails_no_request_and_loses_no_order() {
    for round in 0..50 {
        let lame_duck = if round % 5 == 4 { "300ms" } else { "0s" };
        stop_under_load(round, lame_duck);
    }
}

fn stop_under_load(round: u64, lame_duck: &str) {
    let daemon = Daemon::start(&[("ORDERS_SERVER__SHUTDOWN__LAME_DUCK", lame_duck)]);
    let addr = daemon.http;
    let answers = AtomicU64::new(0);
    // A moment that differs from round to round, and is the same in every run.
    let moment = 200 + round * 37 % 300;
    let accepted: Vec<HashSet<String>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let answers = &answers;
                    move || order_until_refused(addr, client, answers)
                })
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(10);
        while answers.load(Ordering::Relaxed) < moment {
            assert!(Instant::now() < until, "no load");
            thread::yield_now();
        }
        daemon.signal("TERM");
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let end = daemon.end();
    assert_eq!(end.code, Some(0), "round {round}: {:#?}", end.report());
    let shipped: HashSet<_> = end.shipped().into_iter().map(str::to_owned).collect();
    let lost: Vec<_> = accepted.iter().flatten().filter(|id| !shipped.contains(*id)).collect();
    assert!(lost.is_empty(), "round {round}: accepted and not shipped: {lost:?}");
}

/// Orders at its pace until nobody listens any more. Answers the orders that were accepted.
pub(crate) fn order_until_refused(addr: SocketAddr, client: u64, answers: &AtomicU64) -> HashSet<String> {
    let mut accepted = HashSet::new();
    for life in 0.. {
        let Ok(mut connection) = Connection::open(addr) else { return accepted };
        for n in 0.. {
            let id = format!("{client}-{life}-{n}");
            let answer = match connection.order(&id, 1) {
                Ok(answer) => answer,
                Err(error) if connection.answered => panic!("{id} failed on a working connection: {error}"),
                // Refused between connecting and asking: nothing was promised.
                Err(error) if is_refusal(&error) => return accepted,
                Err(error) => panic!("{id}: {error}"),
            };
            assert_eq!(answer.status, 202, "{answer:?}");
            answers.fetch_add(1, Ordering::Relaxed);
            accepted.insert(id);
            if answer.closes() {
                break;
            }
            thread::sleep(PACE);
        }
    }
    accepted
}

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}
