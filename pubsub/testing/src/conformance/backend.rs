//! How the suite reaches a broker, and what it may ask of it.

use std::fmt::Debug;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainspring_pubsub::driver::Capabilities;
use mainspring_pubsub::{Brokers, Error, ErrorKind};
use tokio::process::Command;
use tokio::runtime::Runtime;

/// A broker, as the suite sees it.
///
/// Only the first three methods are needed; the others offer what some cases need. A case that needs what is not
/// offered is skipped.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// What it is called in reports, for example `kafka`.
    fn name(&self) -> String;

    /// A connection of its own, as a new process would make it. Where the broker lives in the process, the same one.
    async fn connect(&self) -> Result<Brokers, Error>;

    /// The URL of a topic for one case, without a group. It exists, and is empty unless it [is
    /// shared](Self::shares_topic). Called several times by cases that need several.
    async fn topic(&self, case: &str) -> Result<String, Error>;

    /// Whether [`topic`](Self::topic) always answers the same topic. Cases then pass over each other's messages, and
    /// those that need several topics are skipped.
    fn shares_topic(&self) -> bool {
        false
    }

    /// The URL of a group of a topic.
    fn group(&self, topic: &str, group: &str) -> String {
        let join = if topic.contains('?') { '&' } else { '?' };
        format!("{topic}{join}group={group}")
    }

    /// How long to wait for what has to come. Every wait of a case is bounded by it.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }

    /// How long nothing has to come before it counts as not coming.
    fn quiet(&self) -> Duration {
        Duration::from_millis(250)
    }

    /// How many cases run at once unless the run says otherwise: more where they wait for the broker more than they work.
    fn at_once(&self) -> NonZeroUsize {
        const { NonZeroUsize::new(4).unwrap() }
    }

    /// The URL of a topic that does not exist.
    fn missing_topic(&self) -> Result<String, String> {
        Err("topics are made when they are first used".to_owned())
    }

    /// Whether publishing to a topic that does not exist makes it.
    fn publishing_makes_topics(&self) -> bool {
        false
    }

    /// A backend like this one whose leases end after this long unless they are extended.
    fn leased(&self) -> Result<(Arc<dyn Backend>, Duration), String> {
        Err("leases have no end of their own".to_owned())
    }

    /// What makes a runtime of one thread whose clock is paused, for brokers whose delays run on tokio's clock. It is for
    /// tests to offer: it takes tokio's feature `test-util`, which a service should not be built with.
    fn paused_runtime(&self) -> Result<fn() -> io::Result<Runtime>, String> {
        Err("runs on the clock on the wall".to_owned())
    }

    /// Whether [`restart`](Self::restart) works, else why not.
    fn can_restart(&self) -> Result<(), String> {
        Err("the suite cannot restart the broker".to_owned())
    }

    /// Has the broker stop and start again, with what it had. Connections break.
    async fn restart(&self) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Unsupported, "restart", "this backend cannot restart its broker"))
    }

    /// A command that starts a process which calls [`child`](super::child) with a backend like this one.
    /// [`main`](super::main) offers itself.
    fn child(&self) -> Result<Command, String> {
        Err("no child process is offered".to_owned())
    }
}

/// What a case needs of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Nacked messages come again.
    Nack,
    /// Nacked messages come again after a delay, and hold back the later ones of their key meanwhile.
    NackDelay,
    /// Messages of a key come in order.
    OrderByKey,
    /// A message that is out holds back the later ones of its key.
    HeldKey,
    /// Deliveries are counted.
    Attempts,
    /// Messages can be published and others acked in one step.
    Transactions,
    /// New groups see older messages.
    Replay,
    /// More than one topic.
    Topics,
    /// Topics can be missing.
    MissingTopic,
    /// Publishing to a missing topic does not make it.
    NoNewTopics,
    /// Leases end.
    Lease,
    /// The broker can be restarted.
    Restart,
    /// Consumers can be processes of their own.
    Process,
    /// Tokio's clock rules.
    PausedClock,
    /// There is a largest message.
    MessageLimit,
    /// There is a longest key.
    KeyLimit,
    /// There is a largest number of attributes.
    AttributeLimit,
}

impl Need {
    /// Why the need is not met; `None` when it is.
    pub(super) fn lack(self, backend: &dyn Backend, can: &Capabilities) -> Option<String> {
        let unless = |met: bool, lack: &str| if met { None } else { Some(lack.to_owned()) };
        let no_limit = |limit: Option<usize>, of: &str| unless(limit.is_some(), &format!("has no limit on {of}"));
        match self {
            Self::Nack => unless(can.nack, "nacked messages do not come back from the broker"),
            Self::NackDelay => unless(can.nack_delay, "the broker cannot delay"),
            Self::OrderByKey => unless(can.ordered_by_key, "the broker keeps no order by key"),
            Self::HeldKey => {
                let lack = "a message that is out does not hold back the later ones of its key; the router does that";
                unless(can.ordered_by_key && can.nack_delay, lack)
            }
            Self::Attempts => unless(can.attempts, "the broker does not count deliveries"),
            Self::Transactions => {
                unless(can.transactions, "publishing and acking are two steps: there are no transactions")
            }
            Self::Replay => unless(can.replay, "new groups do not see older messages"),
            Self::Topics => unless(!backend.shares_topic(), "there is only the one topic that was given"),
            Self::MissingTopic => backend.missing_topic().err(),
            Self::NoNewTopics => {
                unless(!backend.publishing_makes_topics(), "the broker makes topics when they are first published to")
            }
            Self::Lease => backend.leased().err().map(|lack| match can.lease {
                None if !can.extend => "leases have no end of their own".to_owned(),
                _ => lack,
            }),
            Self::Restart => backend.can_restart().err(),
            Self::Process => backend.child().err(),
            Self::PausedClock => backend.paused_runtime().err(),
            Self::MessageLimit => no_limit(can.limits.message_bytes, "the size of messages"),
            Self::KeyLimit => no_limit(can.limits.key_bytes, "the length of keys"),
            Self::AttributeLimit => no_limit(can.limits.attributes, "the number of attributes"),
        }
    }
}
