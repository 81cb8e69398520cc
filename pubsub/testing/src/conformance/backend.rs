//! How the suite reaches a broker, and what it may ask of it.

use std::fmt::{self, Debug};
use std::io;
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

    /// The URL of a topic that does not exist.
    fn missing_topic(&self) -> Result<String, String> {
        Err("topics are made when they are first used".to_owned())
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
    /// New groups see older messages.
    Replay,
    /// More than one topic.
    Topics,
    /// Topics can be missing.
    MissingTopic,
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
            Self::Replay => unless(can.replay, "new groups do not see older messages"),
            Self::Topics => unless(!backend.shares_topic(), "there is only the one topic that was given"),
            Self::MissingTopic => backend.missing_topic().err(),
            Self::Lease => backend.leased().err(),
            Self::Restart => backend.can_restart().err(),
            Self::Process => backend.child().err(),
            Self::PausedClock => backend.paused_runtime().err(),
            Self::MessageLimit => no_limit(can.limits.message_bytes, "the size of messages"),
            Self::KeyLimit => no_limit(can.limits.key_bytes, "the length of keys"),
            Self::AttributeLimit => no_limit(can.limits.attributes, "the number of attributes"),
        }
    }
}

/// A broker that is reached by a URL: its one topic is used for every case, with a group of its own for each.
pub struct UrlBackend {
    url: String,
    connect: Box<dyn Fn() -> Result<Brokers, Error> + Send + Sync>,
    child: Option<Box<dyn Fn() -> Command + Send + Sync>>,
    patience: Duration,
    quiet: Duration,
}

impl UrlBackend {
    /// A backend at `url`, whose brokers are made by `connect`. A `group` in the URL is left out: each case uses a new
    /// one.
    pub fn new(url: &str, connect: impl Fn() -> Result<Brokers, Error> + Send + Sync + 'static) -> Self {
        let (patience, quiet) = (Duration::from_secs(30), Duration::from_secs(2));
        Self { url: without_group(url), connect: Box::new(connect), child: None, patience, quiet }
    }

    /// Offers a command for consumers that are processes of their own: see [`Backend::child`].
    pub fn with_child(mut self, child: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        self.child = Some(Box::new(child));
        self
    }

    /// Sets how long to wait for what has to come, and for what must not come.
    pub fn with_patience(mut self, patience: Duration, quiet: Duration) -> Self {
        (self.patience, self.quiet) = (patience, quiet);
        self
    }
}

#[async_trait]
impl Backend for UrlBackend {
    fn name(&self) -> String {
        self.url.split_once("://").map_or(self.url.as_str(), |(scheme, _)| scheme).to_owned()
    }

    async fn connect(&self) -> Result<Brokers, Error> {
        (self.connect)()
    }

    async fn topic(&self, _case: &str) -> Result<String, Error> {
        Ok(self.url.clone())
    }

    fn shares_topic(&self) -> bool {
        true
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn quiet(&self) -> Duration {
        self.quiet
    }

    fn missing_topic(&self) -> Result<String, String> {
        Err("whether the broker makes topics by itself is not known".to_owned())
    }

    fn leased(&self) -> Result<(Arc<dyn Backend>, Duration), String> {
        Err("the length of leases is not known".to_owned())
    }

    fn child(&self) -> Result<Command, String> {
        let child = self.child.as_ref().ok_or_else(|| "no child process is offered".to_owned())?;
        Ok(child())
    }
}

impl Debug for UrlBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it may hold a password.
        f.debug_struct("UrlBackend").field("name", &self.name()).finish_non_exhaustive()
    }
}

fn without_group(url: &str) -> String {
    let Some((head, query)) = url.split_once('?') else { return url.to_owned() };
    let kept: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("group=")).collect();
    if kept.is_empty() { head.to_owned() } else { format!("{head}?{}", kept.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_taken_out_of_the_url_and_nothing_else_is() {
        assert_eq!(without_group("kafka://t"), "kafka://t");
        assert_eq!(without_group("kafka://t?group=g"), "kafka://t");
        assert_eq!(without_group("kafka://t?start=end&group=g&x=1"), "kafka://t?start=end&x=1");
    }
}
