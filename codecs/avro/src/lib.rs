//! The codec for Avro.
//!
//! A value names the schema that it was written with, and the schema registry has that schema; or all values have the
//! schema of the configuration. Values are decoded to JSON in one pass: schemas are parsed by `apache-avro`, once for each
//! instance, and compiled to a plan.

use std::borrow::Cow;
use std::sync::Arc;

use ktables_guest::schemas::{Schema, SchemaFormat};
use ktables_guest::{CodecError, Context, Encoded, Header, Info, KeyCodec, Plugin, Role, ValueCodec};
use schema_framing::{
    Compiled, Configured, Frame, Registration, SchemaId, Write, decode_key, encode_key, write_frame,
};
use serde::Deserialize;
use serde_json::Value;

use compile::{compile, resolve};
use encode::Form;
use parse::ParsedSchema;
use plan::{Node, Plan};

mod compile;
mod decode;
mod encode;
mod json;
mod names;
mod number;
mod parse;
mod plan;
#[cfg(test)]
mod tests;
mod time;

/// The configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The schema of all values, which then have no id. Text, or JSON.
    plain: Option<Value>,
    /// The schema that values are read with, whatever they were written with.
    reader: Option<Value>,
    /// The schema to write with. It is registered under the subject before the first write.
    schema: Option<Value>,
    write: Write,
    union: Unions,
    decimal: Decimals,
}

/// How the branch of a union is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unions {
    /// Its value alone, where the JSON says which branch it is, or else `{"branch": value}`.
    #[default]
    Plain,
    /// Always `{"branch": value}`, except for null.
    AvroJson,
}

/// How a decimal number is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Decimals {
    #[default]
    String,
    Number,
}

/// The codec.
#[derive(Debug)]
pub struct Avro {
    settings: Settings,
    topic: String,
    role: Role,
    /// The reader's schema.
    reader: Option<ParsedSchema>,
    /// How values without an id are read and written.
    plain: Option<(Plan, Plan)>,
    /// How values are read, by the id of the schema that they were written with.
    readers: Compiled<Plan>,
    /// How values are written, by the id of the schema.
    writers: Compiled<Plan>,
}

/// Returns the text of an error.
pub(crate) fn message(error: CodecError) -> String {
    match error {
        CodecError::Malformed(text)
        | CodecError::Invalid(text)
        | CodecError::Unsupported(text)
        | CodecError::Other(text) => text,
    }
}

ktables_guest::export!(Avro: Plugin, ValueCodec, KeyCodec);

/// Returns the text of a schema in the configuration.
fn text(schema: &Value) -> String {
    match schema {
        // Text of JSON, or the name of a primitive type.
        Value::String(text) if text.trim_start().starts_with(['{', '[', '"']) => text.clone(),
        schema => schema.to_string(),
    }
}

impl Plugin for Avro {
    fn describe() -> Info {
        Info { name: "avro".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), wants_headers: true }
    }

    fn configure(context: &Context) -> Result<Self, String> {
        let settings: Settings =
            serde_json::from_str(&context.config).map_err(|error| format!("config: {error}"))?;
        let configured = Configured { plain: settings.plain.is_some(), schema: settings.schema.is_some() };
        settings.write.check(context.role, configured)?;
        let parse = |name: &str, schema: &Option<Value>| {
            let parsed = schema.as_ref().map(|schema| ParsedSchema::parse(&text(schema), [].into_iter()));
            parsed.transpose().map_err(|error| format!("{name} is no Avro schema: {error}"))
        };
        let reader = parse("reader", &settings.reader)?;
        parse("schema", &settings.schema)?;
        let plain = match parse("plain", &settings.plain)? {
            Some(writer) => {
                let read = resolve(&writer, reader.as_ref().unwrap_or(&writer), &settings);
                let read = read.map_err(|error| format!("plain cannot be read as reader: {error}"))?;
                Some((read, compile(&writer, &settings).map_err(|error| format!("plain: {error}"))?))
            }
            None => None,
        };
        let (topic, role) = (context.topic.clone(), context.role);
        let (readers, writers) = (Compiled::default(), Compiled::default());
        Ok(Self { settings, topic, role, reader, plain, readers, writers })
    }
}

impl Avro {
    fn decode_part(&self, raw: &[u8], headers: &[Header], out: &mut String) -> Result<Arc<Plan>, CodecError> {
        let frame = Frame::read(raw, headers, self.role)?;
        self.settings.write.check_key(&self.topic, self.role, frame.id)?;
        let data = frame.data()?;
        let plan = self.readers.get(frame.id, SchemaFormat::Avro, |writer| {
            let writer = parse(writer)?;
            resolve(&writer, self.reader.as_ref().unwrap_or(&writer), &self.settings)
        })?;
        decode::decode(&plan, &self.settings, data, out)?;
        Ok(plan)
    }

    /// Returns the id of the schema to write with, and how values are written with it.
    fn writer(&self) -> Result<(u32, Arc<Plan>), CodecError> {
        let schema = self.settings.schema.as_ref().map(text);
        let add = schema.as_deref().map(|text| Registration { format: SchemaFormat::Avro, text });
        let id = self.settings.write.id(&self.topic, self.role, add)?;
        let plan = self.writers.get(SchemaId::Number(id), SchemaFormat::Avro, |schema| {
            compile(&parse(schema)?, &self.settings)
        })?;
        Ok((id, plan))
    }

    fn encode_part(&self, to_json: impl Fn(&Plan) -> String) -> Result<Encoded, CodecError> {
        if let Some((_, plan)) = &self.plain {
            return Ok(encode::encode(plan, Form::Value, &to_json(plan))?.into());
        }
        let (id, plan) = self.writer()?;
        let data = encode::encode(&plan, Form::Value, &to_json(&plan))?;
        Ok(write_frame(self.settings.write.framing, id, self.role, &[], &data))
    }
}

/// Parses a schema of the registry.
fn parse(schema: &Schema) -> Result<ParsedSchema, String> {
    let references = schema.references.iter().map(|reference| reference.text.as_str());
    ParsedSchema::parse(&schema.text, references)
}

impl ValueCodec for Avro {
    fn decode<'a>(&self, raw: &'a [u8], headers: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        let mut json = String::with_capacity(raw.len() * 2);
        match &self.plain {
            Some((plan, _)) => decode::decode(plan, &self.settings, raw, &mut json)?,
            None => drop(self.decode_part(raw, headers, &mut json)?),
        }
        Ok(json.into())
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        self.encode_part(|_| value.to_owned())
    }
}

/// The text of a key is its JSON, or the text alone if the schema is a string.
impl KeyCodec for Avro {
    fn decode_key<'a>(&self, raw: &'a [u8]) -> Result<Cow<'a, str>, CodecError> {
        decode_key(raw, |raw| self.key_text(raw), |text| self.key_bytes(text)).map(Cow::Owned)
    }

    fn encode_key<'a>(&self, key: &'a str) -> Result<Cow<'a, [u8]>, CodecError> {
        encode_key(key, |text| self.key_bytes(text), |raw| self.key_text(raw)).map(Cow::Owned)
    }
}

impl Avro {
    fn key_text(&self, raw: &[u8]) -> Result<String, CodecError> {
        let mut json = String::new();
        let is_text = match &self.plain {
            Some((plan, _)) => {
                decode::decode(plan, &self.settings, raw, &mut json)?;
                is_text(plan)
            }
            None => is_text(&*self.decode_part(raw, &[], &mut json)?),
        };
        match is_text {
            // OK because a string was written.
            true => Ok(serde_json::from_str(&json).expect("a string")),
            false => Ok(json),
        }
    }

    fn key_bytes(&self, key: &str) -> Result<Vec<u8>, CodecError> {
        let to_json = |plan: &Plan| match is_text(plan) {
            true => Value::from(key).to_string(),
            false => key.to_owned(),
        };
        Ok(self.encode_part(to_json)?.raw)
    }
}

fn is_text(plan: &Plan) -> bool {
    matches!(plan.nodes[plan.root], Node::String)
}
