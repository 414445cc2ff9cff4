//! Schemas, and the names of their versions.

#[cfg(feature = "cli")]
use std::fmt;
#[cfg(feature = "cli")]
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// The format of a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum SchemaType {
    // Registries do not name it.
    /// Avro.
    #[default]
    Avro,
    /// Protobuf.
    Protobuf,
    /// JSON Schema.
    Json,
    /// Another one, which this client does not know.
    #[serde(other)]
    #[cfg_attr(feature = "cli", value(skip))]
    Other,
}

/// Reads null as the default.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A schema that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// The name by which the other schema refers to it: a full name in Avro, an imported file in Protobuf, an address in
    /// JSON Schema.
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) version: i32,
}

/// A schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Schema {
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) schema_type: SchemaType,
    /// Its text.
    pub(crate) schema: String,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) references: Vec<Reference>,
}

impl Schema {
    /// Returns the bytes of its texts.
    pub(crate) fn byte_len(&self) -> usize {
        let references = self.references.iter();
        let bytes =
            |reference: &Reference| size_of::<Reference>() + reference.name.len() + reference.subject.len();
        self.schema.len() + references.map(bytes).sum::<usize>()
    }
}

/// A schema with the texts of all schemas that it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResolvedSchema {
    pub(crate) schema_type: SchemaType,
    pub(crate) text: String,
    /// The names and the texts of the schemas that it refers to, directly or through others. Each comes before those that
    /// refer to it.
    pub(crate) references: Vec<(String, String)>,
}

/// A version of a subject.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubjectVersion {
    pub(crate) subject: String,
    pub(crate) version: i32,
    pub(crate) id: u32,
    #[serde(flatten)]
    pub(crate) schema: Schema,
}

/// How a user names a version.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionName {
    Latest,
    Number(i32),
}

#[cfg(feature = "cli")]
impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

#[cfg(feature = "cli")]
impl FromStr for VersionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "latest" => Ok(Self::Latest),
            Ok(number) if number > 0 => Ok(Self::Number(number)),
            _ => Err(format!("`{text}` is not a version: write a number from 1 on, or latest")),
        }
    }
}
