//! The sections of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::bundled::is_bundled;
use crate::config::values::{
    Count, HumanDuration, JsonObject, PositiveDuration, Properties, Size, default_true,
};
use crate::log::{Acks, DEFAULT_STALE_AFTER, EnsureTopic, Isolation, LogOptions, NewTopic, OnPolicyMismatch};
use crate::oci::Reference;
use crate::table::{DEFAULT_QUARANTINE_FAULTS, DeadLetterOnError, OnQuarantine, OnReject};
use crate::wasm::{Limits, Profile};
use crate::writer::Verify;

/// The codecs of a table that names none.
pub(super) const DEFAULT_KEY_CODEC: &str = "utf8";
pub(super) const DEFAULT_VALUE_CODEC: &str = "json";

/// `[limits]`: the limits of the process.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessLimits {
    /// How many bytes the process may use before its tables stop applying records.
    #[serde(default, with = "Size")]
    pub(crate) memory: Option<usize>,
    /// How many bytes all instances of components together may use.
    #[serde(default, with = "Size")]
    pub(crate) component_memory: Option<usize>,
}

/// `[logs.NAME]`: a log.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// `kafka://HOST:PORT,…`, or `dir:PATH`.
    pub(crate) url: String,
    /// Which records of transactions are read.
    #[serde(default)]
    pub(crate) isolation: Isolation,
    /// How long the log may be silent, or a table may lag, before the table is degraded.
    #[serde(default, with = "HumanDuration")]
    pub(crate) stale_after: Option<Duration>,
    /// Who must have a record before it is acknowledged.
    #[serde(default)]
    pub(crate) acks: Acks,
    /// Whether producers are idempotent; `false` for brokers without producer ids.
    #[serde(default = "default_true")]
    pub(crate) idempotence: bool,
    /// A file with the token for OAUTHBEARER.
    pub(crate) oauth_token_file: Option<PathBuf>,
    /// Properties of librdkafka.
    #[serde(default, with = "Properties")]
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

    /// Returns the section with the defaults of what it leaves out.
    pub(super) fn with_defaults(self) -> Self {
        Self { stale_after: Some(self.stale_after.unwrap_or(DEFAULT_STALE_AFTER)), ..self }
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
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodecConfig {
    /// The component file, the name of a bundled codec (avro, json-schema, protobuf), or a reference to an artifact:
    /// oci://HOST/REPO:TAG@sha256:…, or oci-layout:DIR:TAG@sha256:….
    pub(crate) component: ComponentLocation,
    /// The digest that the component must have: `sha256:…`.
    pub(crate) digest: Option<String>,
    /// The configuration as JSON.
    #[serde(default, with = "JsonObject")]
    pub(crate) config: Option<String>,
    /// The limits of each instance.
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
    /// The name of a schema registry, or a table of JSON Schemas, for components that look schemas up.
    pub(crate) schema_registry: Option<SchemasFrom>,
    /// Whether the component may add schemas to the registry.
    #[serde(default)]
    pub(crate) register: bool,
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(from = "String", into = "String")]
pub(crate) enum ComponentLocation {
    /// In a file.
    File(PathBuf),
    /// It is part of the program, and has this name.
    Bundled(String),
    /// In an artifact, with this reference. It may be malformed.
    Artifact(String),
}

impl From<String> for ComponentLocation {
    fn from(name: String) -> Self {
        match name {
            name if is_bundled(&name) => Self::Bundled(name),
            // Another scheme is an error that says which ones there are.
            name if Reference::is_reference(&name) || name.contains("://") => Self::Artifact(name),
            name => Self::File(name.into()),
        }
    }
}

impl From<ComponentLocation> for String {
    fn from(location: ComponentLocation) -> Self {
        match location {
            ComponentLocation::File(path) => path.display().to_string(),
            ComponentLocation::Bundled(name) | ComponentLocation::Artifact(name) => name,
        }
    }
}

/// Where the schemas of a codec are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected the name of a schema registry, or { table = \"NAME\" }")]
pub(crate) enum SchemasFrom {
    /// In the schema registry with this name.
    Registry(String),
    /// In a table of JSON Schemas, whose keys are the numbers of versions.
    Table(SchemaTableName),
}

/// `{ table = "NAME" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaTableName {
    /// The name of the table.
    pub(crate) table: String,
}

/// `limits = { … }`. Limits that are not set are those of the profile.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    /// The defaults of the other limits.
    profile: Option<Profile>,
    /// Size of the WebAssembly memories and tables of an instance.
    #[serde(default, with = "Size")]
    memory: Option<usize>,
    /// Output for one record; a call may return four times that.
    #[serde(default, with = "Size")]
    output: Option<usize>,
    /// Time for a call.
    #[serde(default, with = "HumanDuration")]
    deadline: Option<Duration>,
    /// Time added for each record of a call.
    #[serde(default, with = "HumanDuration")]
    deadline_per_record: Option<Duration>,
    /// Time for starting and configuring an instance.
    #[serde(default, with = "HumanDuration")]
    start_deadline: Option<Duration>,
    /// Calls after which an instance is replaced by a new one.
    #[serde(default, with = "Count")]
    recycle_calls: Option<u64>,
    /// Age at which an instance is replaced after a call.
    #[serde(default, with = "PositiveDuration")]
    recycle_age: Option<Duration>,
}

/// A codec of a table.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(from = "String", into = "String")]
pub(crate) enum TableCodec {
    /// A built-in codec, or the one of a section `[codecs.NAME]`, by its name.
    Named(String),
    /// A component that only this table uses in this way.
    Component(Box<CodecConfig>),
}

impl From<String> for TableCodec {
    fn from(name: String) -> Self {
        Self::Named(name)
    }
}

impl From<TableCodec> for String {
    fn from(codec: TableCodec) -> Self {
        match codec {
            TableCodec::Named(name) => name,
            TableCodec::Component(section) => section.component.into(),
        }
    }
}

/// `[tables.NAME]`: a table.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableConfig {
    /// The name of a log.
    pub(crate) log: String,
    /// The topic.
    pub(crate) topic: String,
    /// `utf8`, `bytes`, `json`, or the name of a codec.
    pub(crate) key_codec: Option<TableCodec>,
    /// `json`, `utf8`, `bytes`, or the name of a codec.
    pub(crate) value_codec: Option<TableCodec>,
    /// `length-prefixed`, or the name of a codec; none for a table without groups.
    pub(crate) group_scheme: Option<TableCodec>,
    /// How a value is verified before it is written.
    pub(crate) verify: Option<Verify>,
    /// Whether the topic, and the dead-letter topic, are created if they are missing.
    #[serde(default)]
    pub(crate) ensure_topic: bool,
    /// What to do if the topic exists and is not compacted.
    pub(crate) on_policy_mismatch: Option<OnPolicyMismatch>,
    /// What a rejected record does.
    pub(crate) on_reject: Option<OnReject>,
    /// What happens when a component keeps faulting.
    pub(crate) on_quarantine: Option<OnQuarantine>,
    /// How many of the last 1,000 records may make a component fault.
    pub(crate) quarantine_faults: Option<u32>,
    /// The topic of the same log to which rejected records are written.
    pub(crate) dead_letter: Option<String>,
    /// What happens while that topic cannot be written.
    pub(crate) dead_letter_on_error: Option<DeadLetterOnError>,
    /// Entries whose records are older than this are hidden.
    #[serde(default, with = "PositiveDuration")]
    pub(crate) ttl: Option<Duration>,
    /// The folder in which the table keeps a checkpoint.
    pub(crate) checkpoint: Option<PathBuf>,
    /// An older checkpoint is not used.
    #[serde(default, with = "HumanDuration")]
    pub(crate) checkpoint_max_age: Option<Duration>,
    /// The memory that the table may use.
    #[serde(default, with = "Size")]
    pub(crate) memory_limit: Option<usize>,
}

impl TableConfig {
    /// Returns the section with the defaults of what it leaves out.
    pub(super) fn with_defaults(self) -> Self {
        let named = |codec: Option<TableCodec>, name: &str| codec.or_else(|| Some(name.to_owned().into()));
        let dead_letter_on_error = self
            .dead_letter_on_error
            .or_else(|| self.dead_letter.as_ref().map(|_| DeadLetterOnError::default()));
        Self {
            key_codec: named(self.key_codec, DEFAULT_KEY_CODEC),
            value_codec: named(self.value_codec, DEFAULT_VALUE_CODEC),
            verify: Some(self.verify.unwrap_or_default()),
            on_policy_mismatch: Some(self.on_policy_mismatch.unwrap_or_default()),
            on_reject: Some(self.on_reject.unwrap_or_default()),
            on_quarantine: Some(self.on_quarantine.unwrap_or_default()),
            quarantine_faults: Some(self.quarantine_faults.unwrap_or(DEFAULT_QUARANTINE_FAULTS)),
            dead_letter_on_error,
            ..self
        }
    }

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
            (Some(topic), _) if *topic == self.topic => Err(format!(
                "dead_letter = \"{topic}\": a table cannot use its own topic for its dead letters: choose \
                 another one"
            )),
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
    /// Creates the section of a component with default settings.
    pub(crate) fn new(component: ComponentLocation) -> Self {
        let limits = LimitsConfig::default();
        Self { component, digest: None, config: None, limits, schema_registry: None, register: false }
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

    /// Returns the limits with the defaults of the profile.
    pub(super) fn with_defaults(&self) -> Self {
        let limits = self.limits();
        Self {
            profile: Some(self.profile.unwrap_or_default()),
            memory: Some(limits.memory),
            output: Some(limits.output),
            deadline: Some(limits.deadline),
            deadline_per_record: Some(limits.deadline_per_record),
            start_deadline: Some(limits.start_deadline),
            recycle_calls: Some(limits.recycle_calls),
            recycle_age: Some(limits.recycle_age),
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
