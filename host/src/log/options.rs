//! How a log is to be used. All of it is for clusters; a directory needs nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::LogError;

/// How long nothing may be heard of a log, or a partition may lag, before its tables say
/// that they may be behind.
pub const STALE_AFTER: Duration = Duration::from_secs(10);

/// How a log is to be used.
#[derive(Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Which records of transactions tables see.
    pub isolation: Isolation,
    /// How long nothing may be heard of the log, or a partition may lag, before its tables
    /// are degraded; [`STALE_AFTER`] by default.
    pub stale_after: Duration,
    /// When a written record is acknowledged.
    pub acks: Acks,
    /// Whether the log sees to it that a record that is sent again is not written
    /// twice; some Kafka-compatible brokers cannot.
    pub idempotence: bool,
    /// A file with a token (JWT) for `sasl.mechanism` = `OAUTHBEARER`, read whenever
    /// another one is wanted.
    pub oauth_token_file: Option<PathBuf>,
    /// Properties for librdkafka, by name. Values are never shown.
    pub properties: BTreeMap<String, String>,
}

/// Which records of transactions are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Those of committed transactions; what follows the first record of an open
    /// transaction waits for its end.
    #[default]
    ReadCommitted,
    /// All, also of transactions that are aborted later.
    ReadUncommitted,
}

/// When a written record is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acks {
    /// When all replicas in sync have it.
    #[default]
    All,
    /// When the leader has it: should the leader die at once, it is lost. A barrier speaks
    /// of what the replicas have, too; waiting for the place of a write waits for all.
    Leader,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            stale_after: STALE_AFTER,
            acks: Acks::default(),
            idempotence: true,
            oauth_token_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// Names the properties and none of their values, of which some are secrets.
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
    /// Checks what can be checked without the log.
    ///
    /// # Errors
    ///
    /// [`LogError::Property`] names what contradicts.
    pub fn validate(&self) -> Result<(), LogError> {
        let refused = |name: &str, reason: &str| {
            Err(LogError::Property { name: name.to_owned(), reason: reason.to_owned() })
        };
        if self.stale_after < Duration::from_millis(100) {
            return refused("stale_after", "must be at least 100ms");
        }
        if self.idempotence && self.acks == Acks::Leader {
            return refused("acks", "`leader` needs idempotence = false: idempotence rests on acks = all");
        }
        Ok(())
    }
}
