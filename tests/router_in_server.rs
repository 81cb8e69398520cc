//! The two halves together: what the end of a router is to the process that it runs in.

use std::time::Duration;

use mainspring::pubsub::{Failure, Policy, Router, Text};
use mainspring::server::config::{AdminAddr, LameDuck};
use mainspring::server::{self, SimpleServer};

async fn ship(Text(_): Text) -> Result<(), Failure> {
    Ok(())
}

/// A server on ports of its own.
fn server() -> SimpleServer {
    let mut config = server::Config::default();
    config.http.addr = ([127, 0, 0, 1], 0).into();
    config.admin.addr = AdminAddr(None);
    config.shutdown.lame_duck = LameDuck(Some(Duration::ZERO.into()));
    SimpleServer::new(config)
}

#[tokio::test]
async fn a_policy_that_cannot_work_ends_the_process_with_78_and_the_sentence_that_mends_it() {
    let brokers = mainspring::brokers(&mainspring::BrokersConfig::default()).unwrap();
    let inbox = brokers.subscriber("memory://orders?group=ship").await.unwrap();
    let router = Router::new().route("ship", inbox, ship).policy(Policy::default().attempts(0));
    let bound = server().daemon("ship", |cx| router.run(cx)).bind().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), bound.run(std::future::pending())).await;
    let error = ended.expect("it goes on").unwrap_err();
    assert_eq!(error.code(), 78);
    let said = error.to_string();
    assert!(said.contains("no message would ever be handled"), "{said}");
    assert!(said.contains("use 1 to try each message once"), "{said}");
}
