//! Classifies librdkafka's error codes by what a table does about them, and converts them to errors.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::log::LogError;

/// What an error code means to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// librdkafka keeps retrying: wait.
    Transient,
    /// The cluster refuses the credentials, until somebody repairs them.
    Authentication,
    /// A right is missing.
    Denied,
    /// The topic or the partition does not exist now.
    Missing,
    /// The records at the requested offset no longer exist.
    Gone,
    /// A fetched batch is damaged or cannot be decompressed.
    Damaged,
    /// The broker refused for another reason.
    Refused,
}

/// Returns the class of an error code.
pub(super) fn classify(code: Code) -> ErrorClass {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => ErrorClass::Authentication,
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => ErrorClass::Denied,
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId => ErrorClass::Missing,
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => ErrorClass::Gone,
        Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::UnsupportedCompressionType => {
            ErrorClass::Damaged
        }
        Code::BrokerTransportFailure
        | Code::DestroyBroker
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

/// Converts an error code to the error of a request about a topic.
pub(super) fn topic_error(
    log: &str,
    topic: &str,
    action: &'static str,
    code: Code,
    reason: String,
) -> LogError {
    let (log, topic) = (log.to_owned(), topic.to_owned());
    match classify(code) {
        ErrorClass::Transient => match code {
            Code::BrokerTransportFailure
            | Code::Resolve
            | Code::AllBrokersDown
            | Code::SSL
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut => LogError::unanswered(log, topic, action, &reason),
            _ => LogError::Unreachable { log, topic, action, reason },
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(action: &'static str, code: Code) -> String {
        topic_error("kafka://a:1", "t", action, code, "the reason".to_owned()).to_string()
    }

    #[test]
    fn a_request_to_a_broker_that_left_the_cluster_may_succeed_at_another() {
        let error = topic_error("kafka://a:1", "t", "describe", Code::DestroyBroker, String::new());
        assert!(error.is_transient(), "{error}");
    }

    #[test]
    fn errors_say_what_to_check_or_to_ask_for() {
        for (action, code, advice) in [
            ("describe", Code::Resolve, "security.protocol"),
            ("begin a transaction for", Code::TransactionalIdAuthorizationFailed, "transactional ids"),
            ("write to", Code::ClusterAuthorizationFailed, "IDEMPOTENT_WRITE"),
            ("write to", Code::TopicAuthorizationFailed, "WRITE"),
        ] {
            let message = message(action, code);
            assert!(message.contains("the reason") && message.contains(advice), "{message}");
        }
        let answered = message("write to", Code::NotEnoughReplicas);
        assert!(!answered.contains("address"), "a broker answered: {answered}");
    }
}
