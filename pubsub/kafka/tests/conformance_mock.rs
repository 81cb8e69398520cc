//! The driver passes the suite with no broker outside of this process.

mod common;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use common::mock::Mock;
use common::suite::{self, Broker};
use common::unique;
use mainspring_pubsub::{Error, ErrorKind};

/// Members that were killed keep their share until they are missed; this many leave some to the one that lives.
const PARTITIONS: i32 = 12;
/// The mock misses members after half a minute, and tells the others with their next heartbeats, three seconds apart. To be
/// missed are, beside those who were killed, those who left before it had a partition for them: it does not let them know
/// that they are members.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for clients to find nobody there.
const DOWN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    suite::main("kafka-mock", "protocol=auto", Mock::start)
}

#[async_trait]
impl Broker for Mock {
    fn address(&self) -> String {
        self.address.clone()
    }

    /// It has no controller to send requests for topics to, so routers must find their dead letters' topic.
    async fn create_topic(&self, topic: &str) -> Result<(), Error> {
        let failed =
            |error| Error::new(ErrorKind::Other, "create topic", "the mock does not make it").with_source(error);
        let make = |topic: &str| self.add_topic(topic, PARTITIONS).map_err(failed);
        make(topic).and_then(|()| make(&format!("{topic}.dead")))
    }

    fn missing_topic(&self) -> String {
        let topic = unique("missing");
        self.deny_topic(&topic);
        topic
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// It holds back what comes while a consumer waits for more, half a second each time.
    fn at_once(&self) -> NonZeroUsize {
        const { NonZeroUsize::new(8).unwrap() }
    }

    fn restart(&self) {
        self.down();
        thread::sleep(DOWN);
        self.up();
    }
}
