//! The topic for what a router gives up. Kafka keeps no dead letters itself, so they get a topic beside their source.

use mainspring_pubsub::Error;
use mainspring_pubsub::driver::Url;
use tracing::{debug, info};

use crate::options::{Options, check_topic};
use crate::topics;

const SUFFIX: &str = ".dead";

/// `<topic>.dead`, reached as the source is.
pub(crate) fn options(url: &Url, mut source: Options) -> Result<Options, Error> {
    source.topic.push_str(SUFFIX);
    check_topic(url, &source.topic)?;
    Ok(source)
}

/// Makes the topic unless it is there. A broker that refuses has its reasons, or keeps the topic from us: whoever opens
/// it next learns which.
pub(crate) async fn make_topic(options: &Options) {
    let topic = &options.topic;
    match topics::create(options).await {
        Ok(()) => info!(topic, "topic made for dead letters"),
        Err(error) => debug!(topic, %error, "no topic made for dead letters"),
    }
}
