//! Writes, and how they are verified.

use serde::{Deserialize, Serialize};

/// How an encoded value is verified before it is published.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verify {
    /// It must decode to equal JSON. The order of object members does not matter, and numbers are compared by
    /// value.
    #[default]
    Equal,
    /// It must decode to any value.
    Decodes,
    /// It is not verified.
    Off,
}

/// The entry that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The entry of a key.
    Key(String),
    /// The entry of a member of a group.
    Member {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The entry.
    pub target: Target,
    /// The new value as JSON text; `None` deletes the entry.
    pub value: Option<String>,
}
