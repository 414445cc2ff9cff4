//! The options of a log. Most apply to Kafka clusters only; a directory uses only `stale_after`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::LogError;

/// The default of [`LogOptions::stale_after`].
pub const DEFAULT_STALE_AFTER: Duration = Duration::from_secs(10);

/// The options of a log.
#[derive(Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Which records of transactions are read.
    pub isolation: Isolation,
    /// How long the log may be silent, or a partition may lag, before tables report that they are degraded;
    /// at least 100 ms, [`DEFAULT_STALE_AFTER`] by default.
    pub stale_after: Duration,
    /// When a written record is acknowledged.
    pub acks: Acks,
    /// Whether the producer is idempotent: a record that is sent again is not written twice. Some
    /// Kafka-compatible brokers do not support this.
    pub idempotence: bool,
    /// A file with a token (JWT) for `sasl.mechanism` = `OAUTHBEARER`. It is read each time a client needs a
    /// new token.
    pub oauth_token_file: Option<PathBuf>,
    /// Properties for librdkafka, by name. Their values are never logged or printed.
    pub properties: BTreeMap<String, String>,
}

/// Which records of transactions are read.
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Isolation {
    /// Records of committed transactions only. Records after the first one of an open transaction are read
    /// when it ends.
    #[default]
    ReadCommitted,
    /// All records, including those of transactions that are aborted later.
    ReadUncommitted,
}

/// When a written record is acknowledged.
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Acks {
    /// When all in-sync replicas have it.
    #[default]
    All,
    /// When the leader has it. If the leader dies before the replicas have fetched the record, it is lost.
    /// A barrier covers only records that all in-sync replicas have. Waiting for the offset of a write waits
    /// until they have that record, too.
    Leader,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            stale_after: DEFAULT_STALE_AFTER,
            acks: Acks::default(),
            idempotence: true,
            oauth_token_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// Prints the names of the properties without their values, because some values are secrets.
impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("isolation", &self.isolation)
            .field("stale_after", &self.stale_after)
            .field("acks", &self.acks)
            .field("idempotence", &self.idempotence)
            .field("oauth_token_file", &self.oauth_token_file)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl LogOptions {
    /// Checks the options without connecting to the log.
    ///
    /// # Errors
    ///
    /// [`LogError::InvalidProperty`] with the name of an option that is invalid or contradicts another one.
    pub fn validate(&self) -> Result<(), LogError> {
        let invalid = |name: &str, reason: &str| {
            Err(LogError::InvalidProperty { name: name.to_owned(), reason: reason.to_owned() })
        };
        if self.stale_after < Duration::from_millis(100) {
            return invalid("stale_after", "must be at least 100ms");
        }
        if self.idempotence && self.acks == Acks::Leader {
            return invalid("acks", "`leader` needs idempotence = false: idempotence needs acks = all");
        }
        Ok(())
    }
}
