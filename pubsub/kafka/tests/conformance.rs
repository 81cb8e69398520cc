//! The driver passes the suite, against a broker that may be restarted.

mod common;

use std::process::ExitCode;
use std::sync::Mutex;

use common::private::Private;
use common::suite::{self, Broker};

/// Members that are killed are noticed within seconds, nothing makes topics but the suite, and one broker is enough for
/// transactions.
const SETTINGS: &str = "num.partitions=4\nauto.create.topics.enable=false\n\
     group.consumer.min.session.timeout.ms=1000\ngroup.consumer.session.timeout.ms=6000\n\
     group.consumer.min.heartbeat.interval.ms=100\ngroup.consumer.heartbeat.interval.ms=500\n\
     transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=1";

fn main() -> ExitCode {
    if !Private::can_start() {
        return ExitCode::SUCCESS;
    }
    suite::main("kafka", || Mutex::new(Private::start(SETTINGS).expect("it can start")))
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
