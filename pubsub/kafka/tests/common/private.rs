//! A broker of a test's own, which it may freeze, kill and configure.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::unique;

/// Kafka's own start takes ten seconds; a busy machine takes its time.
const START: Duration = Duration::from_secs(90);

/// What `scripts/brokers.sh` starts its brokers with, too.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/kafka.sh");

pub struct Private {
    pub address: String,
    /// Where clients with a password are let in: `bob`, `s3cret`.
    pub guarded: String,
    folder: PathBuf,
    process: Child,
}

impl Private {
    /// Whether there is something to start.
    pub fn can_start() -> bool {
        is_fetched()
    }

    /// Starts a broker with settings of its own. Needs what `scripts/brokers.sh up` has fetched.
    pub fn start(settings: &str) -> Option<Self> {
        let [client, guarded, controller] = ports();
        let voters = format!("1@127.0.0.1:{controller}");
        let settings = format!(
            "offsets.topic.replication.factor=1\n\
             listeners=PLAINTEXT://127.0.0.1:{client},GUARDED://127.0.0.1:{guarded},CONTROLLER://127.0.0.1:{controller}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT\n\
             listener.name.guarded.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.guarded.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_bob=\"s3cret\";\n{settings}\n"
        );
        let broker = Self::launch(1, &voters, client, guarded, &settings)?;
        broker.wait();
        Some(broker)
    }

    /// Starts three brokers that hold everything thrice, and take no message that two do not have.
    pub fn three() -> Option<[Self; 3]> {
        let controllers = ports();
        let voters: Vec<_> = (1..=3).zip(controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let brokers = [1, 2, 3].map(|id: u16| {
            let [client, ..] = ports();
            let settings = format!(
                "listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{}\n\
                 default.replication.factor=3\nmin.insync.replicas=2\noffsets.topic.replication.factor=3\n\
                 group.consumer.min.session.timeout.ms=1000\ngroup.consumer.session.timeout.ms=10000\n\
                 group.consumer.min.heartbeat.interval.ms=100\ngroup.consumer.heartbeat.interval.ms=500",
                controllers[usize::from(id) - 1]
            );
            Self::launch(id, &voters.join(","), client, client, &settings)
        });
        let [Some(one), Some(two), Some(three)] = brokers else { return None };
        for broker in [&one, &two, &three] {
            broker.wait();
        }
        Some([one, two, three])
    }

    fn launch(id: u16, voters: &str, client: u16, guarded: u16, settings: &str) -> Option<Self> {
        if !is_fetched() {
            return None;
        }
        let folder = std::env::temp_dir().join(unique("kafka"));
        fs::create_dir(&folder).unwrap();
        let settings = format!(
            "node.id={id}\ncontroller.quorum.voters={voters}\nnum.partitions=1\noffsets.topic.num.partitions=1\n\
             broker.session.timeout.ms=2000\nbroker.heartbeat.interval.ms=500\n{settings}\n"
        );
        fs::write(folder.join("settings"), settings).unwrap();
        let process = run(&folder);
        let (address, guarded) = (format!("127.0.0.1:{client}"), format!("127.0.0.1:{guarded}"));
        Some(Self { address, guarded, folder, process })
    }

    /// When this returns, none of its threads runs.
    pub fn freeze(&self) {
        self.signal("STOP");
        let end = Instant::now() + START;
        while !self.stands_still() {
            assert!(Instant::now() < end, "the broker does not stand still");
        }
    }

    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap().flatten();
        let mut states = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        // The state is what follows the name, which may have any character in it.
        states.all(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts again, with the same data.
    pub fn restart(&mut self) {
        self.begin();
        self.wait();
    }

    /// Has the password of `bob` be another from its next start on.
    pub fn change_password(&self, from: &str, to: &str) {
        let path = self.folder.join("settings");
        let settings = fs::read_to_string(&path).unwrap();
        let changed = settings.replace(&format!("user_bob=\"{from}\""), &format!("user_bob=\"{to}\""));
        assert_ne!(settings, changed, "the password was not `{from}`");
        fs::write(path, changed).unwrap();
    }

    /// Starts again and does not wait: one of three does not answer before another is there.
    pub fn begin(&mut self) {
        self.process = run(&self.folder);
    }

    pub fn wait(&self) {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap();
        let end = Instant::now() + START;
        while client.fetch_metadata(None, Duration::from_millis(500)).is_err() {
            assert!(Instant::now() < end, "the broker does not answer; see {}/log", self.folder.display());
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Becomes the broker: a signal to the process reaches it.
fn run(folder: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(SCRIPT);
    command.arg("run").arg(folder).env("KAFKA_CLUSTER_ID", "AAAAAAAAAAAAAAAAAAAAAQ");
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Whether there is a Kafka to start. Without it the test is skipped, unless it is meant to run: then it fails.
fn is_fetched() -> bool {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    let brokers = fs::read_dir(cache.join("mainspring/brokers")).into_iter().flatten().flatten();
    if brokers
        .filter(|found| found.file_name().as_encoded_bytes().starts_with(b"kafka-"))
        .any(|found| found.path().join("lib").is_dir())
    {
        return true;
    }
    let required = ["CI", "MAINSPRING_REQUIRE_BROKERS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!required, "no Kafka in {}; fetch it with scripts/kafka.sh fetch", cache.display());
    println!("SKIPPED: no Kafka in {}; fetch it with scripts/kafka.sh fetch", cache.display());
    false
}

/// Three ports that are free just now. The broker takes them seconds later, so they are none that the system gives to
/// connections meanwhile.
fn ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| {
        let random = std::iter::repeat_with(|| RandomState::new().build_hasher().finish());
        let ports = random.map(|random| 20_000 + (random % 12_000) as u16);
        ports.take(1000).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).expect("no port is free")
    });
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
