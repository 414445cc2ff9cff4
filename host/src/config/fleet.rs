//! The section of what processes publish about their codecs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::PositiveDuration;

/// How often a process publishes its codecs by default.
const DEFAULT_EVERY: Duration = Duration::from_secs(60);

/// `[fleet]`: where the process publishes which codecs it runs.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FleetConfig {
    /// The name of a log.
    pub(crate) log: String,
    /// The topic, which is created if it is missing.
    pub(crate) topic: String,
    /// How often the process publishes.
    #[serde(default, with = "PositiveDuration")]
    pub(crate) every: Option<Duration>,
}

impl FleetConfig {
    pub(crate) fn every(&self) -> Duration {
        self.every.unwrap_or(DEFAULT_EVERY)
    }
}
