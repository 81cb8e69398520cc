//! The topic for what a router gives up. Kafka keeps no dead letters itself, so they get a topic beside their source.

use mainspring_pubsub::Error;
use mainspring_pubsub::driver::Url;
use tracing::{debug, info};

use crate::options::{Options, check_topic};
use crate::{publisher, topics};

const SUFFIX: &str = ".dead";
/// What a dead letter may have more than the message that it was.
const ATTRIBUTES: u32 = 8 << 10;

/// `<topic>.dead`, reached as the source is.
pub(crate) fn options(url: &Url, mut source: Options) -> Result<Options, Error> {
    source.topic.push_str(SUFFIX);
    check_topic(url, &source.topic)?;
    source.limits = publisher::letter_limits();
    Ok(source)
}

/// Makes the topic if it is missing, with room for what its source has. A broker that refuses has its reasons, or keeps
/// the topic from us: whoever opens it next learns which.
pub(crate) async fn make_topic(options: &Options) {
    // Only the cluster's controller makes topics, and none may be there just now.
    if !topics::is_missing(options).await {
        return;
    }
    let topic = &options.topic;
    let source = topic.strip_suffix(SUFFIX).unwrap_or(topic);
    // Unknown to those who may not see it, and the broker's default to most.
    let largest = topics::own_limit(options, source).await.map(|bytes| bytes.saturating_add(ATTRIBUTES));
    match topics::create(options, largest).await {
        Ok(()) => info!(topic, "topic made for dead letters"),
        Err(error) => debug!(topic, %error, "no topic made for dead letters"),
    }
}
