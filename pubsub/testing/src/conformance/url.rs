//! A broker that is reached by a URL.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mainspring_pubsub::{Brokers, Error, ErrorKind};
use tokio::process::Command;

use super::backend::Backend;

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

    /// Removes the topics that were made. Answers the first error, after all have been tried.
    pub async fn remove_topics(&self) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let made = std::mem::take(&mut *own.made.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        for topic in made {
            result = result.and(own.brokers.delete_topic(&topic).await);
        }
        result
    }

    /// The URL of a topic that nobody else has.
    fn named(&self, what: &str) -> String {
        let (head, query) =
            self.url.split_once('?').map_or((self.url.as_str(), None), |(head, query)| (head, Some(query)));
        let name = format!("{head}-{}-{:08x}", what.replace('_', "-"), fastrand::u32(..));
        query.map_or(name.clone(), |query| format!("{name}?{query}"))
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
        own.brokers.create_topic(&topic).await?;
        own.made.lock().unwrap_or_else(PoisonError::into_inner).push(topic.clone());
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
        let url = "kafka://t?auto_offset_reset=latest&group=g&linger=5ms";
        assert_eq!(without_group(url), "kafka://t?auto_offset_reset=latest&linger=5ms");
    }
}
