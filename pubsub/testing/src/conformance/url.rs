//! A broker that is reached by a URL.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use mainspring_pubsub::{Brokers, Error, ErrorKind};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::backend::Backend;

/// How long topics are removed that come back, and the pause before looking.
const REMOVAL: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);

/// Topics that are removed at once.
const AT_ONCE: usize = 8;

/// A broker that is reached by a URL. Its one topic is used for every case, with a group of its own for each; or, after
/// [`with_own_topics`](Self::with_own_topics), a new topic for each.
pub struct UrlBackend {
    url: String,
    connect: Box<dyn Fn() -> Result<Brokers, Error> + Send + Sync>,
    child: Option<Box<dyn Fn() -> Command + Send + Sync>>,
    patience: Duration,
    quiet: Duration,
    own: Option<Own>,
}

/// Topics that were made for the suite.
struct Own {
    brokers: Brokers,
    made: Mutex<Vec<String>>,
    /// Publishing makes topics, too.
    makes_topics: bool,
}

impl UrlBackend {
    /// A backend at `url`, whose brokers are made by `connect`. A `group` in the URL is left out: each case uses a new
    /// one.
    pub fn new(url: &str, connect: impl Fn() -> Result<Brokers, Error> + Send + Sync + 'static) -> Self {
        let (patience, quiet) = (Duration::from_secs(30), Duration::from_secs(2));
        Self { url: without_group(url), connect: Box::new(connect), child: None, patience, quiet, own: None }
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

    /// Makes a new topic for each case, called after the one of the URL, where the driver can make topics and the broker
    /// lets it; else everything stays as it was. [`remove_topics`](Self::remove_topics) takes them away again.
    ///
    /// Fails when the broker cannot be reached. May take as long as opening a missing topic takes.
    pub async fn with_own_topics(mut self) -> Result<Self, Error> {
        let brokers = (self.connect)()?;
        let probe = self.named("probe");
        match brokers.create_topic(&probe).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                return Ok(self);
            }
            Err(error) => return Err(error),
        }
        let unmade = self.named("unmade");
        let makes_topics = match brokers.publisher(&unmade).await {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let made = if makes_topics { vec![probe, unmade] } else { vec![probe] };
        self.own = Some(Own { brokers, made: Mutex::new(made), makes_topics });
        Ok(self)
    }

    /// Removes the topics that were made, and those that routers have made for their dead letters. Answers the first
    /// error, after all have been tried.
    pub async fn remove_topics(&self) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let made = std::mem::take(&mut *own.made.lock().unwrap_or_else(PoisonError::into_inner));
        let end = Instant::now() + REMOVAL;
        // Cases that were cut short leave some to be made yet: what they had just asked for, and, where publishing makes
        // topics, what their publishers ask for until they are closed.
        while own.remove(&made).await? && Instant::now() < end {
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The URL of a topic that nobody else has.
    fn named(&self, what: &str) -> String {
        with_suffix(&self.url, &format!("-{}-{:08x}", what.replace('_', "-"), fastrand::u32(..)))
    }
}

impl Own {
    /// Removes these topics and those beside them; whether there were any.
    async fn remove(&self, topics: &[String]) -> Result<bool, Error> {
        let all = topics.iter().flat_map(|topic| [topic.clone(), with_suffix(topic, ".dead")]);
        let removing = all.map(|topic| async move {
            match self.brokers.delete_topic(&topic).await {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        });
        let removed: Vec<_> = stream::iter(removing).buffer_unordered(AT_ONCE).collect().await;
        removed.into_iter().try_fold(false, |any, removed| Ok(any | removed?))
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

    async fn topic(&self, case: &str) -> Result<String, Error> {
        let Some(own) = &self.own else { return Ok(self.url.clone()) };
        let topic = self.named(case);
        // Noted first: who is stopped while it waits may have made the topic all the same.
        own.made.lock().unwrap_or_else(PoisonError::into_inner).push(topic.clone());
        own.brokers.create_topic(&topic).await?;
        Ok(topic)
    }

    fn shares_topic(&self) -> bool {
        self.own.is_none()
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn quiet(&self) -> Duration {
        self.quiet
    }

    fn missing_topic(&self) -> Result<String, String> {
        let unknown = || "whether the broker makes topics by itself is not known".to_owned();
        self.own.as_ref().map(|_| self.named("missing")).ok_or_else(unknown)
    }

    fn publishing_makes_topics(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.makes_topics)
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

/// The URL of the topic whose name goes on like this.
fn with_suffix(url: &str, suffix: &str) -> String {
    match url.split_once('?') {
        Some((head, query)) => format!("{head}{suffix}?{query}"),
        None => format!("{url}{suffix}"),
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
    fn a_name_goes_on_before_the_options() {
        assert_eq!(with_suffix("kafka://t", ".dead"), "kafka://t.dead");
        assert_eq!(with_suffix("kafka://t?grace=1s", "-case"), "kafka://t-case?grace=1s");
    }

    #[test]
    fn a_group_is_taken_out_of_the_url_and_nothing_else_is() {
        assert_eq!(without_group("kafka://t"), "kafka://t");
        assert_eq!(without_group("kafka://t?group=g"), "kafka://t");
        let url = "kafka://t?auto_offset_reset=latest&group=g&linger=5ms";
        assert_eq!(without_group(url), "kafka://t?auto_offset_reset=latest&linger=5ms");
    }
}
