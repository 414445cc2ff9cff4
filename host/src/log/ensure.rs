//! Seeing to it that a topic is there, and that it is compacted: a log that deletes old
//! records loses the entries that nobody writes again.

use serde::{Deserialize, Serialize};

use crate::log::{Log, LogError, NewTopic, TopicDescription};

/// The setting that says what becomes of old records.
pub(crate) const CLEANUP_POLICY: &str = "cleanup.policy";

/// How to ensure a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnsureTopic {
    /// How it is made if it is not there.
    pub new: NewTopic,
    /// What to do if it is there and is not compacted.
    pub on_policy_mismatch: OnPolicyMismatch,
}

/// What to do about a topic that is there and is not compacted.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPolicyMismatch {
    /// Nothing: it is not looked at.
    Ignore,
    /// Warn, and go on with it.
    #[default]
    Warn,
    /// Fail with [`LogError::PolicyMismatch`].
    Raise,
    /// Change its `cleanup.policy`, and nothing else of it.
    Reconcile,
}

/// What became of a topic that was ensured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// The topic.
    pub topic: TopicDescription,
    /// What was found, or done.
    pub outcome: EnsureOutcome,
    /// The `cleanup.policy` that was found: of one that was reconciled, the one before.
    pub policy: Option<String>,
}

/// What was found, or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnsureOutcome {
    /// It was not there, and was made.
    Created,
    /// It is compacted.
    Verified,
    /// It was not compacted, and is now.
    Reconciled,
    /// It is not compacted; a warning says so.
    Mismatch,
    /// Its policy cannot be read: on Kafka that takes a right of its own.
    Unreadable,
    /// Nobody looked, because nobody wanted to, or because what is wanted is no compacted
    /// topic.
    Skipped,
}

impl EnsureOutcome {
    /// Its name, as users see it.
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

/// Makes a topic if it is not there, and looks at its policy if it is. Number of partitions
/// and replicas, and all other settings of a topic that is there, stay as they are.
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
/// [`LogError::PolicyMismatch`] if that is wanted; whatever the log says to the questions
/// and changes. A policy that cannot be read is an error if it matters: under
/// [`OnPolicyMismatch::Raise`] and [`OnPolicyMismatch::Reconcile`].
pub async fn ensure_topic(log: &dyn Log, topic: &str, how: &EnsureTopic) -> Result<Ensured, LogError> {
    let topic = match log.describe(topic).await {
        Err(LogError::UnknownTopic { .. }) => match log.create(topic, how.new.clone()).await {
            // Somebody was faster.
            Err(LogError::TopicExists { .. }) => log.describe(topic).await?,
            created => {
                let topic = created?;
                tracing::info!(topic = topic.name, partitions = topic.partitions, "created the topic");
                return Ok(Ensured { topic, outcome: EnsureOutcome::Created, policy: None });
            }
        },
        there => there?,
    };
    let wanted = how.new.settings.get(CLEANUP_POLICY).map_or("compact", String::as_str);
    let (outcome, policy) = match how.on_policy_mismatch {
        OnPolicyMismatch::Ignore => (EnsureOutcome::Skipped, None),
        _ if !compacts(wanted) => (EnsureOutcome::Skipped, None),
        action => match (log.setting(&topic.name, CLEANUP_POLICY).await, action) {
            (Ok(policy), action) => (settled(log, &topic.name, wanted, &policy, action).await?, Some(policy)),
            (Err(error), OnPolicyMismatch::Warn) if is_unreadable(&error) => {
                tracing::info!(topic = topic.name, "could not verify that the topic is compacted: {error}");
                (EnsureOutcome::Unreadable, None)
            }
            (Err(error), _) => return Err(error),
        },
    };
    Ok(Ensured { topic, outcome, policy })
}

/// What is to be done about a policy, done.
async fn settled(
    log: &dyn Log,
    topic: &str,
    wanted: &str,
    policy: &str,
    action: OnPolicyMismatch,
) -> Result<EnsureOutcome, LogError> {
    if compacts(policy) {
        say_retention(topic, policy);
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
                "changed cleanup.policy from {policy} to {wanted}; nothing else of the topic"
            );
            say_retention(topic, wanted);
            Ok(EnsureOutcome::Reconciled)
        }
        OnPolicyMismatch::Warn | OnPolicyMismatch::Ignore => {
            tracing::warn!(
                topic,
                "the topic is not compacted (cleanup.policy={policy}, {wanted} is wanted): entries that are \
                 not written again will be lost. `ktables topic ensure --on-policy-mismatch reconcile` changes that"
            );
            Ok(EnsureOutcome::Mismatch)
        }
    }
}

fn say_retention(topic: &str, policy: &str) {
    if words(policy).any(|word| word == "delete") {
        tracing::info!(
            topic,
            "cleanup.policy={policy}: retention deletes entries that are not written again, too"
        );
    }
}

/// Whether a policy, a list of words, keeps the newest record of each key.
#[must_use]
pub fn compacts(policy: &str) -> bool {
    words(policy).any(|word| word == "compact")
}

fn words(policy: &str) -> impl Iterator<Item = &str> {
    policy.split(',').map(str::trim)
}

/// Whether a broker did not let us see a policy, or could not tell.
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
