//! The driver passes the suite, against a broker that may be restarted.

mod common;

use std::fmt;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::private::Private;
use common::{Kafka, unique};
use mainspring_pubsub::{Brokers, Error, ErrorKind};
use mainspring_testing::conformance::{self, Backend};
use tokio::process::Command;
use tokio::task::spawn_blocking;

/// Where the broker is, for the suite's child processes.
const ADDRESS: &str = "MAINSPRING_TEST_BROKER";

/// Members that are killed are noticed within seconds, and nothing makes topics but the suite.
const SETTINGS: &str = "num.partitions=4\nauto.create.topics.enable=false\n\
     group.consumer.min.session.timeout.ms=1000\ngroup.consumer.session.timeout.ms=6000\n\
     group.consumer.min.heartbeat.interval.ms=100\ngroup.consumer.heartbeat.interval.ms=500";

struct KafkaBackend {
    address: String,
    /// A child of the suite has none to restart.
    broker: Option<Arc<Mutex<Private>>>,
}

fn main() -> ExitCode {
    if let Ok(address) = std::env::var(ADDRESS) {
        return conformance::main(|| KafkaBackend { address, broker: None });
    }
    if !Private::can_start() {
        return ExitCode::SUCCESS;
    }
    // Not before it is asked for: whoever lists tests, or runs others, wants no broker.
    conformance::main(|| {
        let broker = Private::start(SETTINGS).expect("it can start");
        KafkaBackend { address: broker.address.clone(), broker: Some(Arc::new(Mutex::new(broker))) }
    })
}

impl KafkaBackend {
    fn kafka(&self) -> Kafka {
        Kafka::at(&self.address)
    }
}

#[async_trait]
impl Backend for KafkaBackend {
    fn name(&self) -> String {
        "kafka".to_owned()
    }

    async fn connect(&self) -> Result<Brokers, Error> {
        Ok(self.kafka().brokers)
    }

    async fn topic(&self, case: &str) -> Result<String, Error> {
        let url = format!("kafka://{}", unique(case));
        self.kafka().brokers.create_topic(&url).await?;
        Ok(url)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Longer than partitions take to move.
    fn quiet(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn missing_topic(&self) -> Result<String, String> {
        Ok(format!("kafka://{}?grace=1s", unique("missing")))
    }

    fn can_restart(&self) -> Result<(), String> {
        self.broker.as_ref().map(drop).ok_or_else(|| "the broker is another's".to_owned())
    }

    async fn restart(&self) -> Result<(), Error> {
        let broker = self.broker.clone();
        let restarted = spawn_blocking(move || {
            let broker = broker?;
            let mut broker = broker.lock().unwrap();
            broker.kill();
            broker.restart();
            Some(())
        });
        let failed = || Error::new(ErrorKind::Other, "restart", "the broker does not start again");
        restarted.await.ok().flatten().ok_or_else(failed)
    }

    fn child(&self) -> Result<Command, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.env(ADDRESS, &self.address);
        Ok(command)
    }
}

impl fmt::Debug for KafkaBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBackend").field("address", &self.address).finish_non_exhaustive()
    }
}
