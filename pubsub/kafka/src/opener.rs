//! From URLs to publishers and subscribers.

use std::time::Duration;

use async_trait::async_trait;
use mainspring_pubsub::driver::{self, Url};
use mainspring_pubsub::{BrokersConfig, Error, KafkaConfig};

use crate::consumer::KafkaSubscriber;
use crate::dead_letters;
use crate::instance::Names;
use crate::options::Options;
use crate::publisher::KafkaPublisher;
use crate::topics;

/// Opens `kafka://` URLs. Each publisher and each subscriber has a client, and connections, of its own.
#[derive(Clone, Debug)]
pub struct Opener {
    kafka: KafkaConfig,
    publish_timeout: Duration,
    names: Names,
}

/// The driver of `kafka://`: brokers for URLs that name none come from `config.kafka`, and messages that could not be
/// sent within `config.publish.timeout` are given up.
pub fn opener(config: &BrokersConfig) -> Opener {
    Opener { kafka: config.kafka.clone(), publish_timeout: config.publish.timeout.get(), names: Names::default() }
}

impl Opener {
    /// What a URL that is to be opened says.
    fn options(&self, url: &Url) -> Result<Options, Error> {
        let options = Options::new(url, &self.kafka)?;
        options.security.check_files()?;
        Ok(options)
    }
}

#[async_trait]
impl driver::Opener for Opener {
    fn check(&self, url: &Url) -> Result<(), Error> {
        Options::new(url, &self.kafka).map(drop)
    }

    fn check_subscriber(&self, url: &Url) -> Result<(), Error> {
        Options::new(url, &self.kafka)?.expect_group(url).map(drop)
    }

    async fn publisher(&self, url: &Url) -> Result<Box<dyn driver::Publisher>, Error> {
        let options = self.options(url)?;
        Ok(Box::new(KafkaPublisher::open(options, self.publish_timeout).await?))
    }

    async fn subscriber(&self, url: &Url) -> Result<Box<dyn driver::Subscriber>, Error> {
        let options = self.options(url)?;
        let group = options.expect_group(url)?;
        Ok(Box::new(KafkaSubscriber::open(options, group, self.names.clone()).await?))
    }

    async fn dead_letters(&self, url: &Url) -> Result<Option<Box<dyn driver::Publisher>>, Error> {
        let options = dead_letters::options(url, self.options(url)?)?;
        dead_letters::make_topic(&options).await;
        Ok(Some(Box::new(KafkaPublisher::open(options, self.publish_timeout).await?)))
    }

    async fn create_topic(&self, url: &Url) -> Result<(), Error> {
        topics::create(&self.options(url)?, None).await
    }

    async fn delete_topic(&self, url: &Url) -> Result<(), Error> {
        topics::delete(&self.options(url)?).await
    }

    async fn delete_group(&self, url: &Url) -> Result<(), Error> {
        let options = self.options(url)?;
        topics::delete_group(&options, &options.expect_group(url)?).await
    }
}
