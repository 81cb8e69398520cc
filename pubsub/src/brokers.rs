//! From URLs to publishers and subscribers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::join_all;
use mainspring_config::Report;
use tokio::time::Instant;

#[cfg(doc)]
use crate::ErrorKind;
use crate::config::{BrokersConfig, PublishConfig};
use crate::driver::{self, Opener, Url};
use crate::publisher::{Publisher, Shared};
use crate::subscriber::Subscriber;
use crate::url::nearest;
use crate::{Error, memory};

/// Schemes whose driver comes with a cargo feature of `mainspring`, of the same name.
const OPTIONAL: [&str; 1] = ["kafka"];

/// Schemes that have no driver yet, and the cargo feature that each will come with.
const PLANNED: [(&str, &str); 5] =
    [("sns", "aws"), ("sqs", "aws"), ("gcp", "gcp"), ("http", "http"), ("https", "http")];

/// Opens publishers and subscribers by URL: one driver for each scheme.
///
/// It is a value that owns its brokers' state: two `Brokers` in one process share nothing, not even `memory://` topics.
/// Clones share everything.
#[derive(Clone, Debug)]
pub struct Brokers {
    openers: Arc<BTreeMap<&'static str, Arc<dyn Opener>>>,
    publish: PublishConfig,
    opened: Arc<Opened>,
}

/// The publishers that are alive, for [`Brokers::flush`].
#[derive(Default)]
struct Opened(Mutex<Vec<Weak<Shared>>>);

impl Brokers {
    /// Brokers with the `memory` scheme registered. Fails with [`ErrorKind::Config`] on settings that cannot work.
    pub fn new(config: &BrokersConfig) -> Result<Self, Error> {
        if let Some(problem) = Report::of(config).into_iter().next() {
            let hint = problem.hint.unwrap_or_default();
            let problem = mainspring_config::Error::one(problem.key, "brokers", problem.what, hint);
            return Err(Error::config("open", problem));
        }
        let brokers = Self { openers: Arc::default(), publish: config.publish.clone(), opened: Arc::default() };
        Ok(brokers.register("memory", memory::Broker::new(config.memory.clone())))
    }

    /// Adds the driver of a scheme, or replaces it.
    pub fn register(mut self, scheme: &'static str, opener: impl Opener) -> Self {
        Arc::make_mut(&mut self.openers).insert(scheme, Arc::new(opener));
        self
    }

    /// Says whether a URL can be opened, as far as that can be told without connecting to anything: its form, its
    /// scheme, its options. What only one of publishing and subscribing needs is not asked for.
    ///
    /// Fails with [`ErrorKind::Config`].
    pub fn check(&self, url: &str) -> Result<(), Error> {
        let url = Url::parse(url)?;
        self.opener(&url)?.check(&url)
    }

    /// The same for a URL that is to be subscribed to: `kafka://orders` needs a group for that, and none to publish.
    ///
    /// Fails with [`ErrorKind::Config`].
    pub fn check_subscriber(&self, url: &str) -> Result<(), Error> {
        let url = Url::parse(url)?;
        self.opener(&url)?.check_subscriber(&url)
    }

    /// Opens a publisher. Options that only concern subscribing, such as `group`, are ignored.
    ///
    /// Fails with [`ErrorKind::Config`] when the URL, its scheme or an option is wrong.
    pub async fn publisher(&self, url: &str) -> Result<Publisher, Error> {
        let url = Url::parse(url)?;
        Ok(self.keep(self.opener(&url)?.publisher(&url).await?))
    }

    /// Opens a subscriber. Messages that are published after this returns are seen by its group.
    ///
    /// Fails with [`ErrorKind::Config`] when the URL, its scheme or an option is wrong.
    pub async fn subscriber(&self, url: &str) -> Result<Subscriber, Error> {
        let url = Url::parse(url)?;
        let driver = self.opener(&url)?.subscriber(&url).await?;
        Ok(Subscriber::open(driver, self.clone(), url))
    }

    /// Makes the topic of a URL, empty, with the broker's own defaults. For tests and tools: services find theirs made.
    ///
    /// Fails with [`ErrorKind::Unsupported`] where the driver does not make topics, as with `memory`, where opening does.
    pub async fn create_topic(&self, url: &str) -> Result<(), Error> {
        let url = Url::parse(url)?;
        self.opener(&url)?.create_topic(&url).await
    }

    /// Removes the topic of a URL, with what is in it.
    pub async fn delete_topic(&self, url: &str) -> Result<(), Error> {
        let url = Url::parse(url)?;
        self.opener(&url)?.delete_topic(&url).await
    }

    /// Removes the group of a URL, with how far it has come; nobody of it may be left. Fails with
    /// [`ErrorKind::Unsupported`] where the driver does not remove groups.
    pub async fn delete_group(&self, url: &str) -> Result<(), Error> {
        let url = Url::parse(url)?;
        self.opener(&url)?.delete_group(&url).await
    }

    /// Flushes every publisher that was opened here and is alive, all at once, until `deadline`. Answers the first
    /// error, after all have been tried.
    pub async fn flush(&self, deadline: Instant) -> Result<(), Error> {
        let opened: Vec<_> = {
            let opened = self.opened.0.lock().unwrap_or_else(PoisonError::into_inner);
            opened.iter().filter_map(Weak::upgrade).collect()
        };
        let results = join_all(opened.iter().map(|publisher| publisher.flush(deadline))).await;
        results.into_iter().collect()
    }

    /// Whether `other` is a clone of this value.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.opened, &other.opened)
    }

    /// Opens the place for the dead letters of what comes from `url`, if its broker has one.
    pub(crate) async fn dead_letters(&self, url: &Url) -> Result<Option<Publisher>, Error> {
        Ok(self.opener(url)?.dead_letters(url).await?.map(|driver| self.keep(driver)))
    }

    /// Makes a publisher, which is flushed with the others.
    fn keep(&self, driver: Box<dyn driver::Publisher>) -> Publisher {
        let publisher = Publisher::open(driver, &self.publish);
        let mut opened = self.opened.0.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|publisher| publisher.strong_count() > 0);
        opened.push(Arc::downgrade(publisher.shared()));
        publisher
    }

    fn opener(&self, url: &Url) -> Result<&Arc<dyn Opener>, Error> {
        let scheme = url.scheme();
        if let Some(opener) = self.openers.get(scheme) {
            return Ok(opener);
        }
        let registered: Vec<_> = self.openers.keys().copied().collect();
        let listed = format!("this program knows: {}", registered.join(", "));
        if OPTIONAL.contains(&scheme) {
            let what = format!("the driver of `{scheme}` is not in this program");
            return Err(url.fault(what, format!("enable the cargo feature `{scheme}` of `mainspring`; {listed}")));
        }
        if let Some((_, feature)) = PLANNED.iter().find(|(planned, _)| *planned == scheme) {
            let what = format!("this version has no driver for `{scheme}`");
            return Err(url.fault(what, format!("the cargo feature `{feature}` of a later one will add it; {listed}")));
        }
        let known = registered.iter().copied().chain(OPTIONAL);
        let hint = match nearest(scheme, known) {
            Some(near) => format!("did you mean `{near}`? {listed}"),
            None => listed,
        };
        Err(url.fault(format!("unknown scheme `{scheme}`"), hint))
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "{} publishers", opened.iter().filter(|publisher| publisher.strong_count() > 0).count())
    }
}
