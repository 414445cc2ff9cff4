//! librdkafka's codes, sorted by what they mean to a table: wait (transient), give
//! up on a topic, or give up on a client.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::log::LogError;

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// It passes: librdkafka goes on trying.
    Transient,
    /// The cluster does not accept who we say we are. It may pass, if somebody mends
    /// it.
    Authentication,
    /// No right to this topic.
    Denied,
    /// There is no such topic or partition now.
    Missing,
    /// What was to be read is not there any more.
    Gone,
    /// What was read is damaged.
    Damaged,
    /// Something else, in the broker's own words.
    Refused,
}

pub(super) fn classify(code: Code) -> ErrorClass {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => ErrorClass::Authentication,
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => ErrorClass::Denied,
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId => ErrorClass::Missing,
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => ErrorClass::Gone,
        Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::UnsupportedCompressionType => {
            ErrorClass::Damaged
        }
        Code::BrokerTransportFailure
        | Code::Resolve
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::AllBrokersDown
        | Code::SSL
        | Code::WaitingForCoordinator
        | Code::WaitCache
        | Code::InProgress
        | Code::PreviousInProgress
        | Code::Retry
        | Code::LeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::ListenerNotFound
        | Code::Unknown
        | Code::NotLeaderForPartition
        | Code::RequestTimedOut
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::NotCoordinator
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::NotController
        | Code::KafkaStorageError
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::ThrottlingQuotaExceeded => ErrorClass::Transient,
        _ => ErrorClass::Refused,
    }
}

/// The error of a request about a topic.
pub(super) fn about_topic(
    log: &str,
    topic: &str,
    action: &'static str,
    code: Code,
    reason: String,
) -> LogError {
    let (log, topic) = (log.to_owned(), topic.to_owned());
    match classify(code) {
        ErrorClass::Transient => LogError::Unreachable { log, topic, action, reason },
        ErrorClass::Authentication => LogError::Authentication { log, reason },
        ErrorClass::Denied => LogError::Denied { log, topic, action, reason },
        ErrorClass::Missing => LogError::UnknownTopic { log, topic },
        ErrorClass::Gone | ErrorClass::Damaged | ErrorClass::Refused => match code {
            Code::TopicAlreadyExists => LogError::TopicExists { log, topic },
            Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidReplicaAssignment
            | Code::InvalidConfig
            | Code::PolicyViolation => LogError::InvalidTopic { topic, reason },
            _ => LogError::Broker { log, topic, action, reason },
        },
    }
}
