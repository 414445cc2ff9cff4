//! What codecs see of a schema registry.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use uuid::Uuid;

use crate::codec::Need;
use crate::registry::{ResolvedSchema, Schema};

/// How the text of [`SchemaAnswer::Unknown`] begins. A codec that returns such a text rejects a record because its schema
/// is unknown.
pub(crate) const UNKNOWN_SCHEMA: &str = "unknown schema: ";

/// The longest name of a subject, in bytes.
pub(crate) const MAX_SUBJECT_BYTES: usize = 1000;

/// How many questions, and how many bytes of them, are collected in one call. The others are asked in the next one.
const MAX_MISSING: usize = 1024;
const MAX_MISSING_BYTES: usize = 4 << 20;

/// The largest schema that a codec may add, in bytes.
pub(crate) const MAX_NEW_SCHEMA_BYTES: usize = 1 << 20;

/// What a codec asks a schema registry for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SchemaQuery {
    /// The schema with this id.
    Id(u32),
    /// The schema with this GUID.
    Guid(Uuid),
    /// The newest version of a subject.
    Latest(String),
    /// A version of a subject.
    Version(String, u32),
    /// The id of a schema, after it was added to a subject that did not have it.
    Register(String, Schema),
}

impl SchemaQuery {
    /// Returns about how many bytes it uses.
    pub(crate) fn byte_len(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Id(_) | Self::Guid(_) => 0,
                Self::Latest(subject) | Self::Version(subject, _) => subject.len(),
                Self::Register(subject, schema) => subject.len() + schema.byte_len(),
            }
    }
}

/// The answer to a [`SchemaQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the command has schema registries"))]
pub(crate) enum SchemaAnswer {
    Schema(Arc<ResolvedSchema>),
    Version {
        version: u32,
        id: u32,
    },
    /// The id of a schema that the subject has now.
    Registered(u32),
    /// The registry does not have it. The text begins with [`UNKNOWN_SCHEMA`].
    Unknown(String),
    /// The registry, or the configuration, refuses it.
    Refused(String),
}

/// Where the schemas of a codec come from.
pub(crate) trait SchemaSource: Debug + Send + Sync {
    /// Returns the answer if the host has it. Does not wait.
    fn find(&self, query: &SchemaQuery) -> Option<SchemaAnswer>;

    /// Returns what obtains the answers that the host does not have.
    fn need(self: Arc<Self>, missing: MissingSchemas) -> Need;

    /// Returns a text that identifies the registry, and what the codec may do with it.
    fn identity(&self) -> String;
}

/// What a call asked for and the host did not have.
#[derive(Debug, Default)]
pub(crate) struct MissingSchemas {
    queries: BTreeSet<SchemaQuery>,
    bytes: usize,
}

impl MissingSchemas {
    pub(crate) fn add(&mut self, query: SchemaQuery) {
        let bytes = query.byte_len();
        let has_room = self.queries.len() < MAX_MISSING && self.bytes + bytes <= MAX_MISSING_BYTES;
        if has_room && self.queries.insert(query) {
            self.bytes += bytes;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    #[cfg(feature = "cli")]
    pub(crate) fn into_queries(self) -> BTreeSet<SchemaQuery> {
        self.queries
    }
}
