//! Which schema a codec writes with.

use ktables_guest::schemas::{self, NewSchema, Reference, SchemaError, SchemaFormat, SubjectVersion};
use ktables_guest::{CodecError, Role};
use serde::Deserialize;

use crate::SchemaId;

/// The setting `write`: which schema a codec writes with, and how records name it. By default, the newest version of the
/// subject of the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Write {
    /// The subject, instead of the one of the strategy.
    subject: Option<String>,
    /// How the subject is named.
    strategy: Strategy,
    /// The full name of the record or message, for strategies that use it.
    record: Option<String>,
    /// The id of the schema, without any subject.
    id: Option<u32>,
    /// The version of the subject, instead of the newest one.
    version: Option<u32>,
    /// Where records name their schema.
    pub framing: Framing,
}

/// Which schemas a configuration has.
#[derive(Debug, Clone, Copy)]
pub struct Configured {
    /// The schema of all values, which then have no id.
    pub plain: bool,
    /// A schema that is registered, and then written with.
    pub schema: bool,
}

/// A schema that is registered, and then written with.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// Its format.
    pub format: SchemaFormat,
    /// Its text.
    pub text: &'a str,
}

/// How the subject of a topic is named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// `TOPIC-value` or `TOPIC-key`.
    #[default]
    Topic,
    /// The full name of the record or message.
    Record,
    /// `TOPIC-` and the full name of the record or message.
    TopicRecord,
}

/// Where a record has the id of its schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// In front of the data.
    #[default]
    Prefix,
    /// In a header. Keys cannot have it there.
    Header,
}

impl Write {
    /// Checks that the settings fit together, and to what the codec is used for.
    ///
    /// # Errors
    ///
    /// What does not fit.
    pub fn check(&self, role: Role, schemas: Configured) -> Result<(), String> {
        let Configured { plain, schema: adds_schema } = schemas;
        if plain && (adds_schema || *self != Self::default()) {
            return Err("plain is for values without an id: remove it, or schema and write".to_owned());
        }
        if role == Role::Key && !plain && !self.is_fixed() {
            let reason = "a key must always have the same bytes, because Kafka compacts by them: set write.id or write.version";
            return Err(reason.to_owned());
        }
        let error = |text: &str| Err(format!("write: {text}"));
        if self.id.is_some() && (self.subject.is_some() || self.version.is_some()) {
            return error("id names a schema without a subject or a version: remove them");
        }
        if adds_schema && (self.id.is_some() || self.version.is_some()) {
            return error("a schema that is added has no id and no version yet: remove them, or schema");
        }
        let has_strategy = self.strategy != Strategy::Topic || self.record.is_some();
        if has_strategy && (self.subject.is_some() || self.id.is_some()) {
            return error("strategy and record name a subject: remove them, or subject and id");
        }
        if self.record.is_some() && self.strategy == Strategy::Topic {
            return error("record is for strategy = \"record\" and \"topic-record\"");
        }
        if self.framing == Framing::Header && role == Role::Key {
            return error("framing = \"header\" is for values: a key codec cannot write headers");
        }
        if self.strategy != Strategy::Topic && self.record.is_none() {
            return error(
                "strategy = \"record\" and \"topic-record\" need the full name of the record: record = \"…\"",
            );
        }
        Ok(())
    }

    /// Whether the settings name one schema for ever.
    fn is_fixed(&self) -> bool {
        self.id.is_some() || self.version.is_some()
    }

    /// Returns the subject and the version to write with, for values that name these.
    ///
    /// # Errors
    ///
    /// If the host does not know it yet, or the registry does not have it.
    pub fn version(&self, topic: &str, role: Role) -> Result<(String, SubjectVersion), CodecError> {
        let subject = self.subject(topic, role);
        let version = match self.version {
            Some(version) => schemas::by_version(&subject, version),
            None => schemas::latest(&subject),
        };
        Ok((subject, version.map_err(schemas::codec_error)?))
    }

    /// Fails if a key has another schema than the keys that are written.
    ///
    /// # Errors
    ///
    /// If it has another one, or the host does not know yet which one is written.
    pub fn check_key(&self, topic: &str, role: Role, found: SchemaId) -> Result<(), CodecError> {
        if role != Role::Key {
            return Ok(());
        }
        let own = self.id(topic, role, None)?;
        match found == SchemaId::Number(own) {
            true => Ok(()),
            false => Err(CodecError::Malformed(format!(
                "its schema has the id {found}, and the keys of this table have {own}: Kafka would not compact them together"
            ))),
        }
    }

    /// Whether `write.id` is set.
    #[must_use]
    pub fn has_id(&self) -> bool {
        self.id.is_some()
    }

    /// Returns the id of the schema to write with. Adds a schema first, if there is one to add.
    ///
    /// # Errors
    ///
    /// If the host does not know it yet, or the registry does not have it.
    pub fn id(&self, topic: &str, role: Role, add: Option<Registration<'_>>) -> Result<u32, CodecError> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let subject = self.subject(topic, role);
        let id: Result<u32, SchemaError> = match (add, self.version) {
            (Some(Registration { format, text }), _) => {
                let references: Vec<Reference> = Vec::new();
                schemas::register(&subject, &NewSchema { format, text: text.to_owned(), references })
            }
            (None, Some(version)) => schemas::by_version(&subject, version).map(|version| version.id),
            (None, None) => schemas::latest(&subject).map(|version| version.id),
        };
        id.map_err(schemas::codec_error)
    }

    fn subject(&self, topic: &str, role: Role) -> String {
        if let Some(subject) = &self.subject {
            return subject.clone();
        }
        let record = self.record.as_deref().unwrap_or_default();
        match self.strategy {
            Strategy::Topic if role == Role::Key => format!("{topic}-key"),
            Strategy::Topic => format!("{topic}-value"),
            Strategy::Record => record.to_owned(),
            Strategy::TopicRecord => format!("{topic}-{record}"),
        }
    }
}
