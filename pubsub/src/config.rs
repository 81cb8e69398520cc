//! The section of a service's configuration that says how brokers are reached.

use mainspring_config::{ByteSize, Check, Duration, Report};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{KafkaConfig, memory};

/// How brokers are reached; which one is used is up to the URLs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-section" = "brokers",
    "x-env-ignored" = ["KAFKA_PARTITION=the members of a group share its partitions, and keys choose where messages go: take it out"]
))]
pub struct BrokersConfig {
    /// Bounds on publishing, for every broker.
    pub publish: PublishConfig,
    /// The broker inside this process, `memory://`.
    pub memory: memory::Config,
    /// Apache Kafka, `kafka://`.
    pub kafka: KafkaConfig,
    /// Amazon SNS and SQS, `sns://` and `sqs://`.
    pub aws: AwsConfig,
    /// Google Pub/Sub, `gcp://`.
    pub gcp: GcpConfig,
}

/// How much a publisher may have on its way at once.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PublishConfig {
    /// Messages on their way, for each publisher. More wait.
    pub max_messages: usize,
    /// Bytes on their way, for each publisher. More wait.
    pub max_bytes: ByteSize,
    /// How long a publish may take, waiting for room included. The default is less than a request may take
    /// (`http.request_timeout`), so that a route has its answer in time to say 503.
    pub timeout: Duration,
}

/// Amazon Web Services.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AwsConfig {
    /// The region, for example `eu-west-1`; without it, what the environment of the process says.
    #[schemars(extend("x-env" = ["AWS_REGION"]))]
    pub region: Option<String>,
    /// Where to send requests instead of to AWS, for example to an emulator.
    #[schemars(extend("x-env" = ["AWS_ENDPOINT_URL"]))]
    pub endpoint_url: Option<String>,
    /// A role to assume, by its ARN.
    #[schemars(extend("x-env" = ["AWS_ROLE_ARN"]))]
    pub role_arn: Option<String>,
}

/// Google Cloud.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GcpConfig {
    /// The project of topics and subscriptions that are named without one.
    #[schemars(extend("x-env" = ["GOOGLE_CLOUD_PROJECT"]))]
    pub project: Option<String>,
    /// An emulator to use instead of Google, as `host:port`; no credentials are sent to it.
    #[schemars(extend("x-env" = ["PUBSUB_EMULATOR_HOST"]))]
    pub emulator_host: Option<String>,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self { max_messages: 1000, max_bytes: ByteSize::mib(64), timeout: Duration::from_secs(12) }
    }
}

impl Check for BrokersConfig {
    fn check(&self, report: &mut Report) {
        self.publish.check(report);
        self.memory.check(report);
        self.kafka.check(report);
    }
}

impl Check for PublishConfig {
    fn check(&self, report: &mut Report) {
        if self.max_messages == 0 {
            report.fault("publish.max_messages", "nothing could be published", "use at least 1");
        }
        if self.max_bytes.get() == 0 || self.max_bytes.get() > u64::from(u32::MAX) {
            report.fault("publish.max_bytes", "must be between 1B and 4GiB - 1B", "the default is 64MiB");
        }
        if self.timeout.get().is_zero() {
            report.fault("publish.timeout", "every publish would fail at once", "the default is 12s");
        }
    }
}
