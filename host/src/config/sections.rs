//! The sections of the configuration file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::config::values::{
    default_true, deserialize_count, deserialize_duration, deserialize_json, deserialize_positive_duration,
    deserialize_properties, deserialize_size,
};
use crate::log::{Acks, DEFAULT_STALE_AFTER, EnsureTopic, Isolation, LogOptions, NewTopic, OnPolicyMismatch};
use crate::table::{DeadLetterOnError, OnQuarantine, OnReject};
use crate::wasm::{Limits, Profile};
use crate::writer::Verify;

/// `[limits]`: the limits of the process.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessLimits {
    /// How many bytes the process may use before its tables stop applying records.
    #[serde(default, deserialize_with = "deserialize_size")]
    pub(crate) memory: Option<usize>,
    /// How many bytes all instances of components together may use.
    #[serde(default, deserialize_with = "deserialize_size")]
    pub(crate) component_memory: Option<usize>,
}

/// `[logs.NAME]`: a log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogConfig {
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) isolation: Isolation,
    #[serde(default, deserialize_with = "deserialize_duration")]
    pub(crate) stale_after: Option<Duration>,
    #[serde(default)]
    pub(crate) acks: Acks,
    #[serde(default = "default_true")]
    pub(crate) idempotence: bool,
    pub(crate) oauth_token_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "deserialize_properties")]
    pub(crate) properties: BTreeMap<String, String>,
}

impl LogConfig {
    /// Creates the section of a log with default options.
    pub(crate) fn new(url: &str) -> Self {
        let defaults = LogOptions::default();
        Self {
            url: url.to_owned(),
            isolation: defaults.isolation,
            stale_after: None,
            acks: defaults.acks,
            idempotence: defaults.idempotence,
            oauth_token_file: None,
            properties: defaults.properties,
        }
    }

    pub(crate) fn options(&self) -> LogOptions {
        LogOptions {
            isolation: self.isolation,
            stale_after: self.stale_after.unwrap_or(DEFAULT_STALE_AFTER),
            acks: self.acks,
            idempotence: self.idempotence,
            oauth_token_file: self.oauth_token_file.clone(),
            properties: self.properties.clone(),
        }
    }
}

/// `[codecs.NAME]`: a component, and how it is configured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodecConfig {
    /// The component file.
    pub(crate) component: PathBuf,
    pub(crate) digest: Option<String>,
    /// The configuration as JSON.
    #[serde(default, deserialize_with = "deserialize_json")]
    pub(crate) config: Option<String>,
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
}

/// `limits = { … }`. Limits that are not set are those of the profile.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    profile: Option<Profile>,
    #[serde(default, deserialize_with = "deserialize_size")]
    memory: Option<usize>,
    #[serde(default, deserialize_with = "deserialize_size")]
    output: Option<usize>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    deadline: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    deadline_per_record: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    start_deadline: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_count")]
    recycle_calls: Option<u64>,
    #[serde(default, deserialize_with = "deserialize_positive_duration")]
    recycle_age: Option<Duration>,
}

/// A codec of a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "String")]
pub(crate) enum TableCodec {
    /// A built-in codec, or the one of a section `[codecs.NAME]`, by its name.
    Named(String),
    /// A component that only this table uses in this way.
    Component(CodecConfig),
}

impl From<String> for TableCodec {
    fn from(name: String) -> Self {
        Self::Named(name)
    }
}

/// `[tables.NAME]`: a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableConfig {
    pub(crate) log: String,
    pub(crate) topic: String,
    pub(crate) key_codec: Option<TableCodec>,
    pub(crate) value_codec: Option<TableCodec>,
    pub(crate) group_scheme: Option<TableCodec>,
    pub(crate) verify: Option<Verify>,
    #[serde(default)]
    pub(crate) ensure_topic: bool,
    pub(crate) on_policy_mismatch: Option<OnPolicyMismatch>,
    pub(crate) on_reject: Option<OnReject>,
    pub(crate) on_quarantine: Option<OnQuarantine>,
    pub(crate) quarantine_faults: Option<u32>,
    pub(crate) dead_letter: Option<String>,
    pub(crate) dead_letter_on_error: Option<DeadLetterOnError>,
    #[serde(default, deserialize_with = "deserialize_positive_duration")]
    pub(crate) ttl: Option<Duration>,
    pub(crate) checkpoint: Option<PathBuf>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    pub(crate) checkpoint_max_age: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_size")]
    pub(crate) memory_limit: Option<usize>,
}

impl TableConfig {
    /// Whether another section differs at most in its codecs.
    pub(crate) fn has_other_codecs_only(&self, other: &Self) -> bool {
        let without =
            |table: &Self| Self { key_codec: None, value_codec: None, group_scheme: None, ..table.clone() };
        without(self) == without(other)
    }

    /// Creates the section of a table with default options.
    pub(crate) fn new(log: &str, topic: &str) -> Self {
        Self {
            log: log.to_owned(),
            topic: topic.to_owned(),
            key_codec: None,
            value_codec: None,
            group_scheme: None,
            verify: None,
            ensure_topic: false,
            on_policy_mismatch: None,
            on_reject: None,
            on_quarantine: None,
            quarantine_faults: None,
            dead_letter: None,
            dead_letter_on_error: None,
            ttl: None,
            checkpoint: None,
            checkpoint_max_age: None,
            memory_limit: None,
        }
    }

    /// Returns the dead-letter topic, and what happens when it cannot be written; `None` if there is none.
    pub(crate) fn dead_letter_options(&self) -> Result<Option<(&str, DeadLetterOnError)>, String> {
        match (&self.dead_letter, self.dead_letter_on_error) {
            (Some(topic), on_error) => Ok(Some((topic, on_error.unwrap_or_default()))),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err("dead_letter_on_error needs a dead-letter topic: set dead_letter = \"TOPIC\"".to_owned())
            }
        }
    }

    /// Returns how the topic is ensured; `None` if it is not.
    pub(crate) fn ensure_options(&self) -> Result<Option<EnsureTopic>, String> {
        let on_policy_mismatch = self.on_policy_mismatch.unwrap_or_default();
        let options = EnsureTopic { new: NewTopic::default(), on_policy_mismatch };
        match (self.ensure_topic, on_policy_mismatch) {
            (true, _) => Ok(Some(options)),
            (false, OnPolicyMismatch::Ignore | OnPolicyMismatch::Warn) => Ok(None),
            (false, OnPolicyMismatch::Raise | OnPolicyMismatch::Reconcile) => {
                Err("on_policy_mismatch = \"raise\" and \"reconcile\" need ensure_topic = true".to_owned())
            }
        }
    }
}

impl CodecConfig {
    /// Creates the section of a component file with default settings.
    pub(crate) fn new(component: &Path) -> Self {
        let limits = LimitsConfig::default();
        Self { component: component.to_owned(), digest: None, config: None, limits }
    }
}

impl LimitsConfig {
    /// Takes the limits that are not set from `other`.
    pub(crate) fn or(self, other: &Self) -> Self {
        Self {
            profile: self.profile.or(other.profile),
            memory: self.memory.or(other.memory),
            output: self.output.or(other.output),
            deadline: self.deadline.or(other.deadline),
            deadline_per_record: self.deadline_per_record.or(other.deadline_per_record),
            start_deadline: self.start_deadline.or(other.start_deadline),
            recycle_calls: self.recycle_calls.or(other.recycle_calls),
            recycle_age: self.recycle_age.or(other.recycle_age),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let defaults = Limits::new(self.profile.unwrap_or_default());
        Limits {
            memory: self.memory.unwrap_or(defaults.memory),
            output: self.output.unwrap_or(defaults.output),
            deadline: self.deadline.unwrap_or(defaults.deadline),
            deadline_per_record: self.deadline_per_record.unwrap_or(defaults.deadline_per_record),
            start_deadline: self.start_deadline.unwrap_or(defaults.start_deadline),
            recycle_calls: self.recycle_calls.unwrap_or(defaults.recycle_calls),
            recycle_age: self.recycle_age.unwrap_or(defaults.recycle_age),
        }
    }
}
