//! Under load.

use super::goaway::{h2_client, h2_get};
use super::*;

/// What happened to the requests of one round. A request counts from when its connection has answered before.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicUsize,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    fn failed(&self, what: impl std::fmt::Debug) {
        self.failed.lock().unwrap().push(format!("{what:?}"));
    }
}

const H1_CLIENTS: u64 = 12;
const H2_CLIENTS: u64 = 2;
const H2_STREAMS: u64 = 4;
const RATE: u64 = 2000;

/// Sends a request every so often and opens a new connection when told to go; ends when there is nobody to connect to.
async fn h1_load(addr: SocketAddr, tally: Arc<Tally>, mut pace: tokio::time::Interval) {
    while let Ok(mut client) = Http1::try_connect(addr).await {
        let mut answered = false;
        loop {
            pace.tick().await;
            if client.sender.is_closed() {
                // The last answer did not say `connection: close`, so the next request would have met a reset.
                if answered {
                    tally.failed("closed without a word");
                }
                break;
            }
            match client.get("/hello").await {
                Ok(answer) => {
                    assert_eq!(answer.text(), "hello");
                    tally.answered.fetch_add(1, Ordering::Relaxed);
                    answered = true;
                    if answer.header("connection") == Some("close") {
                        break;
                    }
                }
                // A connection that was never answered may have come too late; it is not what is promised.
                Err(error) => {
                    if answered {
                        tally.failed(error);
                    }
                    break;
                }
            }
        }
    }
}

/// The same for one stream after another of a connection that is shared.
async fn h2_load(client: h2::client::SendRequest<Bytes>, tally: Arc<Tally>, mut pace: tokio::time::Interval) {
    loop {
        pace.tick().await;
        let Ok(mut client) = client.clone().ready().await else { return };
        let Ok(answer) = h2_get(&mut client, "/hello") else { return };
        match soon("a response", answer).await {
            Ok(text) => assert_eq!(text, b"hello"),
            Err(error) => tally.failed(error),
        }
        tally.answered.fetch_add(1, Ordering::Relaxed);
    }
}

async fn fifty_rounds(lame_duck: Duration) {
    let mut random = fastrand::Rng::new();
    for round in 0..50 {
        let app = on_loopback(hello(), |config| config.shutdown.lame_duck = LameDuck(Some(lame_duck.into()))).await;
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        let gap = Duration::from_secs(H1_CLIENTS + H2_CLIENTS * H2_STREAMS) / RATE as u32;
        let mut pace = || {
            let start = tokio::time::Instant::now() + gap.mul_f64(random.f64());
            let mut pace = tokio::time::interval_at(start, gap);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            pace
        };
        for _ in 0..H1_CLIENTS {
            clients.spawn(h1_load(app.addr(), Arc::clone(&tally), pace()));
        }
        for _ in 0..H2_CLIENTS {
            let client = h2_client(app.addr(), &mut clients).await;
            for _ in 0..H2_STREAMS {
                clients.spawn(h2_load(client.clone(), Arc::clone(&tally), pace()));
            }
        }
        tokio::time::sleep(Duration::from_secs_f64(0.04 + 0.1 * random.f64())).await;
        let report = soon("the end", app.sigterm()).await;
        while let Some(client) = soon("the end of the clients", clients.join_next()).await {
            client.unwrap();
        }
        assert!(!report.forced && report.requests_aborted == 0, "round {round}: {report:?}");
        assert!(tally.answered.load(Ordering::Relaxed) > 20, "round {round} had no load: {tally:?}");
        assert!(tally.failed.lock().unwrap().is_empty(), "round {round}: {tally:?}, {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_under_load_no_request_fails() {
    fifty_rounds(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_under_load_with_a_lame_duck_no_request_fails() {
    fifty_rounds(ms(100)).await;
}
