//! Ensures that a topic exists and is compacted: a topic that deletes old records loses the entries that
//! nobody writes again.

use serde::{Deserialize, Serialize};

use crate::log::{Log, LogError, NewTopic, TopicDescription};

/// The topic setting that decides whether old records are compacted or deleted.
pub(crate) const CLEANUP_POLICY: &str = "cleanup.policy";

/// The options of [`ensure_topic`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnsureTopic {
    /// How the topic is created if it does not exist.
    pub new: NewTopic,
    /// What to do if the topic exists and is not compacted.
    pub on_policy_mismatch: OnPolicyMismatch,
}

/// What to do about an existing topic that is not compacted.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnPolicyMismatch {
    /// Do nothing; its policy is not checked.
    Ignore,
    /// Log a warning, and continue.
    #[default]
    Warn,
    /// Fail.
    ///
    /// The error is [`LogError::PolicyMismatch`].
    Raise,
    /// Change its `cleanup.policy`, and nothing else.
    Reconcile,
}

/// The result of [`ensure_topic`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ensured {
    /// The topic.
    pub topic: TopicDescription,
    /// What was found or done.
    pub outcome: EnsureOutcome,
    /// The `cleanup.policy` that was found, before it was changed.
    pub policy: Option<String>,
}

/// What [`ensure_topic`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnsureOutcome {
    /// The topic did not exist, and was created.
    Created,
    /// The topic is compacted.
    Verified,
    /// The topic was not compacted, and is now.
    Reconciled,
    /// The topic is not compacted; a warning was logged.
    Mismatch,
    /// The policy cannot be read: on Kafka, that takes the right DESCRIBE_CONFIGS.
    Unreadable,
    /// The policy was not checked, because the options say so, or because no compacted topic is wanted.
    Skipped,
}

impl EnsureOutcome {
    /// The name that users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Verified => "verified",
            Self::Reconciled => "reconciled",
            Self::Mismatch => "mismatch",
            Self::Unreadable => "unreadable",
            Self::Skipped => "skipped",
        }
    }
}

/// Whether old records of a topic are deleted once their keys have newer ones. If its policy cannot be read, it counts as
/// not compacted.
pub(crate) async fn is_compacted(log: &dyn Log, topic: &str) -> bool {
    // A directory calls all topics compacted, because readers see the newest record of each key, but keeps all records.
    !log.url().starts_with("dir:")
        && log.setting(topic, CLEANUP_POLICY).await.is_ok_and(|policy| compacts(&policy))
}

/// Creates a topic if it does not exist, and checks its cleanup policy if it does. The number of partitions
/// and replicas, and all other settings of an existing topic, stay as they are.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ktables::log::{EnsureTopic, OnPolicyMismatch, ensure_topic};
///
/// let log = ktables::log::open("kafka://localhost:9092")?;
/// let how = EnsureTopic { on_policy_mismatch: OnPolicyMismatch::Raise, ..EnsureTopic::default() };
/// let ensured = ensure_topic(&*log, "services", &how).await?;
/// println!("{}", ensured.outcome.name());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`LogError::PolicyMismatch`] with [`OnPolicyMismatch::Raise`]; any error of the log. A policy that cannot
/// be read is an error only with [`OnPolicyMismatch::Raise`] and [`OnPolicyMismatch::Reconcile`].
pub async fn ensure_topic(log: &dyn Log, topic: &str, how: &EnsureTopic) -> Result<Ensured, LogError> {
    let topic = match log.describe(topic).await {
        Err(LogError::UnknownTopic { .. }) => match log.create(topic, how.new.clone()).await {
            // Somebody else created it meanwhile.
            Err(LogError::TopicExists { .. }) => log.describe(topic).await?,
            created => {
                let topic = created?;
                tracing::info!(topic = topic.name, partitions = topic.partitions, "created the topic");
                return Ok(Ensured { topic, outcome: EnsureOutcome::Created, policy: None });
            }
        },
        described => described?,
    };
    let wanted = how.new.settings.get(CLEANUP_POLICY).map_or("compact", String::as_str);
    let (outcome, policy) = match how.on_policy_mismatch {
        OnPolicyMismatch::Ignore => (EnsureOutcome::Skipped, None),
        _ if !compacts(wanted) => (EnsureOutcome::Skipped, None),
        action => match (log.setting(&topic.name, CLEANUP_POLICY).await, action) {
            (Ok(policy), action) => {
                (enforce_policy(log, &topic.name, wanted, &policy, action).await?, Some(policy))
            }
            (Err(error), OnPolicyMismatch::Warn) if is_unreadable(&error) => {
                tracing::info!(topic = topic.name, "could not verify that the topic is compacted: {error}");
                (EnsureOutcome::Unreadable, None)
            }
            (Err(error), _) => return Err(error),
        },
    };
    Ok(Ensured { topic, outcome, policy })
}

/// Checks the policy of an existing topic, and takes the action if the topic is not compacted.
async fn enforce_policy(
    log: &dyn Log,
    topic: &str,
    wanted: &str,
    policy: &str,
    action: OnPolicyMismatch,
) -> Result<EnsureOutcome, LogError> {
    if compacts(policy) {
        log_retention(topic, policy);
        return Ok(EnsureOutcome::Verified);
    }
    match action {
        OnPolicyMismatch::Raise => {
            let (topic, wanted, actual) = (topic.to_owned(), wanted.to_owned(), policy.to_owned());
            Err(LogError::PolicyMismatch { topic, wanted, actual })
        }
        OnPolicyMismatch::Reconcile => {
            log.set_cleanup_policy(topic, wanted).await?;
            tracing::info!(
                topic,
                "changed cleanup.policy from {policy} to {wanted}; other settings are unchanged"
            );
            log_retention(topic, wanted);
            Ok(EnsureOutcome::Reconciled)
        }
        OnPolicyMismatch::Warn | OnPolicyMismatch::Ignore => {
            tracing::warn!(
                topic,
                "the topic is not compacted (cleanup.policy={policy}, {wanted} is wanted): entries that are \
                 not written again will be lost. `ktables topic ensure --on-policy-mismatch \
                 reconcile` changes that"
            );
            Ok(EnsureOutcome::Mismatch)
        }
    }
}

/// Logs that retention deletes entries of a topic, if it does.
fn log_retention(topic: &str, policy: &str) {
    if words(policy).any(|word| word == "delete") {
        tracing::info!(
            topic,
            "cleanup.policy={policy}: retention deletes entries that are not written again"
        );
    }
}

/// Whether a policy, a comma-separated list, keeps the newest record of each key.
#[must_use]
fn compacts(policy: &str) -> bool {
    words(policy).any(|word| word == "compact")
}

/// Whether two policies are the same list: clusters keep the spaces between its words.
#[cfg(feature = "kafka")]
pub(in crate::log) fn is_same_policy(first: &str, second: &str) -> bool {
    words(first).eq(words(second))
}

fn words(policy: &str) -> impl Iterator<Item = &str> {
    policy.split(',').map(str::trim)
}

/// Whether the policy could not be read, although the topic can be used.
fn is_unreadable(error: &LogError) -> bool {
    matches!(error, LogError::Denied { .. } | LogError::Unreachable { .. } | LogError::Broker { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_a_set_of_words() {
        for policy in ["compact", "compact,delete", "delete,compact", "delete, compact", " compact "] {
            assert!(compacts(policy), "{policy}");
        }
        for policy in ["delete", "", "compacted"] {
            assert!(!compacts(policy), "{policy}");
        }
    }
}
