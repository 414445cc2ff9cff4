//! The codec for Protocol Buffers.
//!
//! A value names the schema that it was written with and the message type in it, and the schema registry has that schema;
//! or all values have the schema and the type of the configuration. JSON is in Protobuf's canonical form.

use std::borrow::Cow;
use std::sync::Arc;

use buffa::DecodeOptions;
use buffa_descriptor::{DynamicMessage, DynamicMessageSeed, MessageIndex};
use ktables_guest::schemas::{self, SchemaFormat};
use ktables_guest::{CodecError, Context, Encoded, Header, Info, KeyCodec, Plugin, Role, ValueCodec};
use schema_framing::{
    Compiled, Configured, Frame, Registration, SchemaId, Write, decode_key, encode_key, shorten, write_frame,
};
use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_path_to_error::Track;

use indexes::Indexes;
use required::check_required_fields;
use schema::Schema;
use to_json::{Integers, MessageJson, UNKNOWN};
use unknown_fields::UnknownFields;

mod built_in_files;
mod edition;
mod indexes;
mod required;
mod schema;
mod strip;
#[cfg(test)]
mod tests;
mod to_json;
mod unknown_fields;

/// How many bytes the elements of lists and maps of a value may use while it is decoded: a quarter of what an instance has by
/// default.
const MAX_ELEMENT_BYTES: usize = 16 << 20;

/// How many fields of a value may be unknown.
const MAX_UNKNOWN_FIELDS: usize = 100_000;

/// The configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// The schema of all values, which then have no id.
    plain: Option<String>,
    /// The schema to write with. It is registered under the subject before the first write.
    schema: Option<String>,
    /// The full name of the message type to write; by default, the first one of the schema.
    message: Option<String>,
    write: Write,
    integers: Integers,
}

/// The codec.
#[derive(Debug)]
pub struct Protobuf {
    settings: Settings,
    topic: String,
    role: Role,
    /// The schema and the message type of values without an id.
    plain: Option<(Arc<Schema>, MessageIndex)>,
    schemas: Compiled<Schema>,
}

ktables_guest::export!(Protobuf: Plugin, ValueCodec, KeyCodec);

impl Plugin for Protobuf {
    fn describe() -> Info {
        let (name, version) = ("protobuf".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Info { name, version, wants_headers: true }
    }

    fn configure(context: &Context) -> Result<Self, String> {
        let settings: Settings =
            serde_json::from_str(&context.config).map_err(|error| format!("config: {error}"))?;
        let configured = Configured { plain: settings.plain.is_some(), schema: settings.schema.is_some() };
        settings.write.check(context.role, configured)?;
        let compile = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => {
                let schema = Schema::compile(text, &[])
                    .map_err(|error| format!("{name} is not a Protobuf schema: {error}"))?;
                let written = written_message(&schema, &settings);
                let (_, message) = written.map_err(|error| format!("{name}: {error}"))?;
                Ok::<_, String>(Some((Arc::new(schema), message)))
            }
        };
        compile("schema", &settings.schema)?;
        let plain = compile("plain", &settings.plain)?;
        let (topic, role) = (context.topic.clone(), context.role);
        Ok(Self { settings, topic, role, plain, schemas: Compiled::default() })
    }
}

/// Returns the message type that is written, and its indexes.
fn written_message(schema: &Schema, settings: &Settings) -> Result<(Indexes, MessageIndex), String> {
    let name = settings.message.as_deref();
    let indexes = schema.indexes_of(name).ok_or_else(|| match name {
        Some(name) => format!(
            "the schema has no message type {}; it has {}",
            shorten(name),
            schema.message_names().collect::<Vec<_>>().join(", ")
        ),
        None => "the schema has no message type".to_owned(),
    })?;
    // OK because these are the indexes of a message type of the schema.
    let message = schema.message_at(&indexes).expect("a message type");
    Ok((indexes, message))
}

impl Protobuf {
    fn schema(&self, id: SchemaId) -> Result<Arc<Schema>, CodecError> {
        self.schemas.get(id, SchemaFormat::Protobuf, |schema: &schemas::Schema| {
            Schema::compile(&schema.text, &schema.references)
        })
    }

    fn decode_part(&self, raw: &[u8], headers: &[Header]) -> Result<String, CodecError> {
        let (schema, message, data) = match &self.plain {
            Some((schema, message)) => (schema.clone(), *message, raw),
            None => {
                let frame = Frame::read(raw, headers, self.role)?;
                self.settings.write.check_key(&self.topic, self.role, frame.id)?;
                let schema = self.schema(frame.id)?;
                let (indexes, data) = frame.data_after(Indexes::read)?;
                let message = schema.message_at(&indexes).ok_or_else(|| {
                    CodecError::Malformed(format!("its schema has no message type {:?}", indexes.0))
                })?;
                (schema, message, data)
            }
        };
        let limits = DecodeOptions::new()
            .with_element_memory_limit(MAX_ELEMENT_BYTES)
            .with_unknown_field_limit(MAX_UNKNOWN_FIELDS);
        let message = DynamicMessage::decode_with_options(schema.pool.clone(), message, data, &limits)
            .map_err(|error| CodecError::Malformed(error.to_string()))?;
        serde_json::to_string(&MessageJson { message: &message, integers: self.settings.integers })
            .map_err(|error| CodecError::Invalid(error.to_string()))
    }

    fn encode_part(&self, json: &str) -> Result<Encoded, CodecError> {
        if let Some((schema, message)) = &self.plain {
            return Ok(encode(schema, *message, json)?.into());
        }
        let schema = self.settings.schema.as_deref();
        let add = schema.map(|text| Registration { format: SchemaFormat::Protobuf, text });
        let id = self.settings.write.id(&self.topic, self.role, add)?;
        let schema = self.schema(SchemaId::Number(id))?;
        let (indexes, message) = written_message(&schema, &self.settings).map_err(CodecError::Invalid)?;
        let data = encode(&schema, message, json)?;
        Ok(write_frame(self.settings.write.framing, id, self.role, &indexes.to_bytes(), &data))
    }
}

/// Parses the JSON of a message. An error names the place in it.
fn parse(schema: &Schema, message: MessageIndex, json: &str) -> Result<DynamicMessage, CodecError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let mut track = Track::new();
    let seed = DynamicMessageSeed::new(schema.pool.clone(), message);
    let parsed = seed.deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track));
    let parsed = parsed.and_then(|parsed| deserializer.end().map(|()| parsed));
    parsed.map_err(|error| {
        let path = track.path().to_string();
        let place = if path == "." { String::new() } else { format!("{}: ", shorten(&path)) };
        CodecError::Invalid(format!("{place}{error}"))
    })
}

/// Encodes the JSON of a message.
fn encode(schema: &Schema, message: MessageIndex, json: &str) -> Result<Vec<u8>, CodecError> {
    let pool = &schema.pool;
    let mut encoded;
    if json.contains(&format!("\"{UNKNOWN}\"")) {
        let mut json = serde_json::from_str(json).map_err(|error| CodecError::Invalid(error.to_string()))?;
        let unknown = UnknownFields::take(&mut json, pool, message).map_err(CodecError::Invalid)?;
        encoded = parse(schema, message, &json.to_string())?;
        unknown.restore(&mut encoded).map_err(CodecError::Invalid)?;
    } else {
        encoded = parse(schema, message, json)?;
    }
    if schema.has_required_fields {
        check_required_fields(&encoded).map_err(CodecError::Invalid)?;
    }
    encoded.try_encode_to_vec().map_err(|error| CodecError::Invalid(error.to_string()))
}

impl ValueCodec for Protobuf {
    fn decode<'a>(&self, raw: &'a [u8], headers: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        Ok(self.decode_part(raw, headers)?.into())
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        self.encode_part(value)
    }
}

/// The text of a key is its JSON.
impl KeyCodec for Protobuf {
    fn decode_key<'a>(&self, raw: &'a [u8]) -> Result<Cow<'a, str>, CodecError> {
        decode_key(raw, |raw| self.key_text(raw), |text| self.key_bytes(text)).map(Cow::Owned)
    }

    fn encode_key<'a>(&self, key: &'a str) -> Result<Cow<'a, [u8]>, CodecError> {
        encode_key(key, |text| self.key_bytes(text), |raw| self.key_text(raw)).map(Cow::Owned)
    }
}

impl Protobuf {
    fn key_text(&self, raw: &[u8]) -> Result<String, CodecError> {
        self.decode_part(raw, &[])
    }

    fn key_bytes(&self, key: &str) -> Result<Vec<u8>, CodecError> {
        Ok(self.encode_part(key)?.raw)
    }
}
