//! The conformance suite against a broker that was started for it.

use std::fmt;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mainspring_pubsub::{Brokers, Error, ErrorKind};
use mainspring_testing::conformance::{self, Backend};
use tokio::process::Command;
use tokio::task::spawn_blocking;

use super::private::Private;
use super::{Kafka, unique};

/// Where the broker is, for the suite's child processes.
const ADDRESS: &str = "MAINSPRING_TEST_BROKER";

/// What the suite asks of the broker that was started for it.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    fn address(&self) -> String;

    async fn create_topic(&self, topic: &str) -> Result<(), Error> {
        Kafka::at(&self.address()).brokers.create_topic(&format!("kafka://{topic}")).await
    }

    /// A topic that is not there, and that nothing makes.
    fn missing_topic(&self) -> String {
        unique("missing")
    }

    /// How long to wait for what has to come: longer than it takes to miss a member that is gone.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// How many cases run at once.
    fn at_once(&self) -> NonZeroUsize {
        const { NonZeroUsize::new(4).unwrap() }
    }

    /// Stops and starts again, with what it had.
    fn restart(&self);
}

/// Runs the suite against a real broker, by URLs with these options. Without one there is nothing to run.
pub fn on_real_broker(name: &'static str, options: &'static str) -> ExitCode {
    if !Private::can_start() {
        return ExitCode::SUCCESS;
    }
    main(name, options, || Mutex::new(Private::start(SETTINGS).expect("it can start")))
}

/// Members that are killed are noticed within seconds, nothing makes topics but the suite, and one broker is enough for
/// transactions.
const SETTINGS: &str = "num.partitions=4\nauto.create.topics.enable=false\n\
     group.consumer.min.session.timeout.ms=1000\ngroup.consumer.session.timeout.ms=6000\n\
     group.consumer.min.heartbeat.interval.ms=100\ngroup.consumer.heartbeat.interval.ms=500\n\
     transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=1";

/// Runs the suite. The broker is not started before it is asked for: whoever lists tests, or runs others, wants none.
pub fn main<B: Broker>(name: &'static str, options: &'static str, start: impl FnOnce() -> B) -> ExitCode {
    if let Ok(address) = std::env::var(ADDRESS) {
        return conformance::main(|| KafkaBackend { name, options, address, broker: None });
    }
    conformance::main(|| {
        let broker = start();
        KafkaBackend { name, options, address: broker.address(), broker: Some(Arc::new(broker)) }
    })
}

struct KafkaBackend {
    name: &'static str,
    options: &'static str,
    address: String,
    /// A child of the suite has only the address.
    broker: Option<Arc<dyn Broker>>,
}

impl Broker for Mutex<Private> {
    fn address(&self) -> String {
        self.lock().unwrap().address.clone()
    }

    fn restart(&self) {
        let mut broker = self.lock().unwrap();
        broker.kill();
        broker.restart();
    }
}

impl KafkaBackend {
    fn broker(&self) -> Result<Arc<dyn Broker>, Error> {
        let missing = || Error::new(ErrorKind::Unsupported, "verify", "the broker is another's");
        self.broker.clone().ok_or_else(missing)
    }
}

#[async_trait]
impl Backend for KafkaBackend {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    async fn connect(&self) -> Result<Brokers, Error> {
        Ok(Kafka::at(&self.address).brokers)
    }

    async fn topic(&self, case: &str) -> Result<String, Error> {
        let topic = unique(case);
        self.broker()?.create_topic(&topic).await?;
        Ok(format!("kafka://{topic}?{}", self.options))
    }

    fn patience(&self) -> Duration {
        self.broker.as_ref().map_or(Duration::from_secs(30), |broker| broker.patience())
    }

    /// Longer than partitions take to come to a member that need not wait for others to give them up.
    fn quiet(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn at_once(&self) -> NonZeroUsize {
        self.broker.as_ref().map_or(NonZeroUsize::MIN, |broker| broker.at_once())
    }

    fn missing_topic(&self) -> Result<String, String> {
        let broker = self.broker().map_err(|error| error.to_string())?;
        Ok(format!("kafka://{}?grace=1s&{}", broker.missing_topic(), self.options))
    }

    fn can_restart(&self) -> Result<(), String> {
        self.broker().map(drop).map_err(|error| error.to_string())
    }

    async fn restart(&self) -> Result<(), Error> {
        let broker = self.broker()?;
        let failed = |_| Error::new(ErrorKind::Other, "restart", "the broker does not start again");
        spawn_blocking(move || broker.restart()).await.map_err(failed)
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
        f.debug_struct("KafkaBackend").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}
