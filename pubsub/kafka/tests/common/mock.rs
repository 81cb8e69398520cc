//! A broker inside this process: the mock that comes with the client. It speaks the protocol, keeps what it is given in
//! memory, and is reached by its port like any other.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaRespErr;

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Work = Box<dyn FnOnce(&Cluster) + Send>;

/// Every broker of the cluster.
const ALL: i32 = -1;

/// The client's handle on it must not leave the thread that made it, so that one has a thread of its own.
pub struct Mock {
    pub address: String,
    work: Option<mpsc::SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Mock {
    pub fn start() -> Self {
        let (work, orders) = mpsc::sync_channel::<Work>(1);
        let (started, address) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let cluster = MockCluster::new(1).unwrap();
            started.send(cluster.bootstrap_servers()).unwrap();
            orders.iter().for_each(|work| work(&cluster));
        });
        let address = address.recv().expect("the cluster starts");
        Self { address, work: Some(work), thread: Some(thread) }
    }

    pub fn add_topic(&self, topic: &str, partitions: i32) -> KafkaResult<()> {
        let topic = topic.to_owned();
        self.with(move |cluster| cluster.create_topic(&topic, partitions, 1))
    }

    /// Has it say that there is no such topic, where it would make one for whoever publishes.
    pub fn deny_topic(&self, topic: &str) {
        let (topic, missing) = (topic.to_owned(), RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        self.with(move |cluster| cluster.topic_error(&topic, missing)).unwrap();
    }

    /// Breaks all connections, and takes no new ones.
    pub fn down(&self) {
        self.with(|cluster| cluster.broker_down(ALL)).unwrap();
    }

    /// Is there again, with what it had.
    pub fn up(&self) {
        self.with(|cluster| cluster.broker_up(ALL)).unwrap();
    }

    fn with<T: Send + 'static>(&self, work: impl FnOnce(&Cluster) -> T + Send + 'static) -> T {
        let (sender, answer) = mpsc::sync_channel(1);
        let work: Work = Box::new(move |cluster| drop(sender.send(work(cluster))));
        self.work.as_ref().expect("it runs").send(work).expect("its thread runs");
        answer.recv().expect("an answer")
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.work.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
