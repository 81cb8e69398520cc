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

#[async_trait]
impl driver::Opener for Opener {
    async fn publisher(&self, url: &Url) -> Result<Box<dyn driver::Publisher>, Error> {
        let options = Options::new(url, &self.kafka)?;
        Ok(Box::new(KafkaPublisher::open(options, self.publish_timeout).await?))
    }

    async fn subscriber(&self, url: &Url) -> Result<Box<dyn driver::Subscriber>, Error> {
        let options = Options::new(url, &self.kafka)?;
        let group = options.expect_group(url)?;
        Ok(Box::new(KafkaSubscriber::open(options, group, self.names.clone()).await?))
    }

    async fn dead_letters(&self, url: &Url) -> Result<Option<Box<dyn driver::Publisher>>, Error> {
        let options = dead_letters::options(url, Options::new(url, &self.kafka)?)?;
        dead_letters::make_topic(&options).await;
        Ok(Some(Box::new(KafkaPublisher::open(options, self.publish_timeout).await?)))
    }

    async fn create_topic(&self, url: &Url) -> Result<(), Error> {
        topics::create(&Options::new(url, &self.kafka)?).await
    }

    async fn delete_topic(&self, url: &Url) -> Result<(), Error> {
        topics::delete(&Options::new(url, &self.kafka)?).await
    }
}
