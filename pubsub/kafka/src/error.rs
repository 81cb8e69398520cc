//! What the client's errors mean.

use mainspring_pubsub::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::SYSTEM;

/// An error of `operation`.
pub(crate) fn error(
    kind: ErrorKind,
    operation: &'static str,
    what: impl Into<std::borrow::Cow<'static, str>>,
) -> Error {
    Error::new(kind, operation, what).with_backend(SYSTEM)
}

/// What the client said, as an error of `operation`: its cause.
pub(crate) fn from_kafka(operation: &'static str, cause: KafkaError) -> Error {
    let kind = cause.rdkafka_error_code().map_or(ErrorKind::Other, kind);
    error(kind, operation, cause.to_string()).with_source(cause)
}

/// Why the client could not be made: something that it was told makes no sense to it, a certificate for example.
pub(crate) fn from_creation(cause: &KafkaError) -> Error {
    let hint = "`ssl.ca.location`, `ssl.certificate.location` and `ssl.key.location` are `brokers.kafka.tls.ca`, `cert` and `key` here";
    let what = cause.to_string();
    let hint = if what.contains("ssl.") { hint } else { "see `kafka` in the configuration of the brokers" };
    Error::config("open", mainspring_config::Error::one("kafka", "brokers", what, hint)).with_backend(SYSTEM)
}

/// The answer to what was settled and will be handled again elsewhere.
pub(crate) fn lost() -> Error {
    error(
        ErrorKind::Lost,
        "commit",
        "the partition was lost before the transaction; the message is handled again elsewhere",
    )
}

/// What was settled last was not committed when its consumer left, and why.
pub(crate) fn uncommitted(cause: Error) -> Error {
    let what = "what was acked last was not committed, and may be handled again";
    error(cause.kind(), "close", what).with_source(cause)
}

/// What sort of error a code stands for.
pub(crate) fn kind(code: Code) -> ErrorKind {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => ErrorKind::NotFound,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => ErrorKind::PermissionDenied,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => ErrorKind::TooLarge,
        Code::InvalidTopic | Code::InvalidRecord | Code::InvalidTimestamp | Code::PolicyViolation => ErrorKind::Invalid,
        Code::UnsupportedForMessageFormat | Code::UnsupportedVersion | Code::UnsupportedFeature => {
            ErrorKind::Unsupported
        }
        Code::QueueFull | Code::ThrottlingQuotaExceeded => ErrorKind::Throttled,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
            ErrorKind::Timeout
        }
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::SSL
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::RebalanceInProgress
        | Code::NetworkException
        | Code::NotEnoughReplicas
        | Code::KafkaStorageError
        | Code::NodeUpdate
        | Code::WaitingForCoordinator => ErrorKind::Unavailable,
        Code::IllegalGeneration | Code::UnknownMemberId | Code::AssignmentLost | Code::StaleMemberEpoch => {
            ErrorKind::Lost
        }
        _ => ErrorKind::Other,
    }
}

/// What the broker, or the client on its behalf, made of a message that was handed over.
pub(crate) fn from_delivery(code: Code, topic: &str) -> Error {
    let cause = KafkaError::MessageProduction(code);
    let said = cause.to_string();
    let failed = |kind, what: String| error(kind, "publish", what).with_source(cause);
    match code {
        Code::PurgeQueue => {
            failed(ErrorKind::Unavailable, "given up before it was sent; it is not published".to_owned())
        }
        // The broker may have it: in probes it had every single one.
        Code::PurgeInflight => failed(
            ErrorKind::Timeout,
            "given up before the broker answered; the message may or may not have been published".to_owned(),
        ),
        Code::MessageTimedOut | Code::NotEnoughReplicasAfterAppend | Code::RequestTimedOut | Code::NetworkException => {
            failed(ErrorKind::Timeout, format!("{said}; the message may or may not have been published"))
        }
        // The broker and the client no longer agree on what was sent before.
        Code::Fatal
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping => failed(
            ErrorKind::Timeout,
            format!("{said}; the client is replaced, and the message may or may not have been published"),
        ),
        Code::UnknownTopicOrPartition | Code::UnknownTopic => {
            failed(ErrorKind::NotFound, format!("there is no topic `{topic}`"))
        }
        code => failed(kind(code), said),
    }
}
