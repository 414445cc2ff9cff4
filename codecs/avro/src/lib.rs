//! The codec for Avro.
//!
//! A value names the schema that it was written with, and the schema registry has that schema; or all values have the
//! schema of the configuration. Values are decoded to JSON in one pass: schemas are parsed by `apache-avro`, once for each
//! instance, and compiled to a plan.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ktables_guest::schemas::{self, Schema, SchemaFormat};
use ktables_guest::{CodecError, Context, Encoded, Header, Info, KeyCodec, Plugin, Role, ValueCodec};
use schema_framing::{Frame, Registration, SchemaId, Write};
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
    readers: Plans,
    /// How values are written, by the id of the schema.
    writers: Plans,
}

/// The plans of schemas, or why a schema cannot be used, by the id of the schema.
type Plans = Mutex<HashMap<SchemaId, Result<Arc<Plan>, CodecError>>>;

/// How many plans an instance keeps.
const MAX_PLANS: usize = 100;

/// Returns the plan of a schema, which is compiled once.
fn plan_of(
    plans: &Plans,
    id: SchemaId,
    compile: impl Fn(&ParsedSchema) -> Result<Plan, String>,
) -> Result<Arc<Plan>, CodecError> {
    let mut plans = plans.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(plan) = plans.get(&id) {
        return plan.clone();
    }
    let schema = id.schema().map_err(schemas::codec_error)?;
    let unusable = |error| CodecError::Invalid(format!("its schema cannot be used: {error}"));
    let plan = parse(&schema).and_then(|schema| compile(&schema).map(Arc::new).map_err(unusable));
    if plans.len() == MAX_PLANS {
        plans.clear();
    }
    plans.insert(id, plan.clone());
    plan
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
        let settings: Settings = serde_json::from_str(&context.config).map_err(|error| error.to_string())?;
        settings.write.check(context.role, settings.schema.is_some())?;
        if settings.plain.is_some() && (settings.schema.is_some() || settings.write != Write::default()) {
            return Err("plain is for values without an id: remove it, or schema and write".to_owned());
        }
        if context.role == Role::Key && settings.plain.is_none() && !settings.write.is_fixed() {
            let reason = "a key has one id for ever, because Kafka compacts by its bytes: set write.id or write.version";
            return Err(reason.to_owned());
        }
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
        let (readers, writers) = (Plans::default(), Plans::default());
        Ok(Self { settings, topic, role, reader, plain, readers, writers })
    }
}

impl Avro {
    fn decode_part(&self, raw: &[u8], headers: &[Header], out: &mut String) -> Result<Arc<Plan>, CodecError> {
        let frame = Frame::read(raw, headers, self.role)?;
        if frame.header_rest.is_some_and(|rest| !rest.is_empty()) {
            return Err(CodecError::Malformed(
                "the header with the id of the schema has more bytes".to_owned(),
            ));
        }
        let plan = plan_of(&self.readers, frame.id, |writer| {
            resolve(writer, self.reader.as_ref().unwrap_or(writer), &self.settings)
        })?;
        decode::decode(&plan, &self.settings, frame.data, out)?;
        Ok(plan)
    }

    /// Returns the id of the schema to write with, and how values are written with it.
    fn writer(&self) -> Result<(u32, Arc<Plan>), CodecError> {
        let schema = self.settings.schema.as_ref().map(text);
        let add = schema.as_deref().map(|text| Registration { format: SchemaFormat::Avro, text });
        let id = self.settings.write.id(&self.topic, self.role, add)?;
        let plan = plan_of(&self.writers, SchemaId::Number(id), |schema| compile(schema, &self.settings))?;
        Ok((id, plan))
    }

    fn encode_part(&self, to_json: impl Fn(&Plan) -> String) -> Result<Encoded, CodecError> {
        if let Some((_, plan)) = &self.plain {
            return Ok(encode::encode(plan, Form::Value, &to_json(plan))?.into());
        }
        let (id, plan) = self.writer()?;
        let data = encode::encode(&plan, Form::Value, &to_json(&plan))?;
        Ok(Frame::write(self.settings.write.framing, id, self.role, &data))
    }
}

/// Parses a schema of the registry.
fn parse(schema: &Schema) -> Result<ParsedSchema, CodecError> {
    if schema.format != SchemaFormat::Avro {
        let format = match schema.format {
            SchemaFormat::Protobuf => "Protobuf",
            SchemaFormat::Json => "JSON Schema",
            SchemaFormat::Avro | SchemaFormat::Other => "of another format",
        };
        return Err(CodecError::Unsupported(format!("its schema is {format}, not Avro")));
    }
    let references = schema.references.iter().map(|reference| reference.text.as_str());
    ParsedSchema::parse(&schema.text, references)
        .map_err(|error| CodecError::Invalid(format!("its schema is no Avro schema: {error}")))
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
            true => Ok(serde_json::from_str::<String>(&json).expect("a string").into()),
            false => Ok(json.into()),
        }
    }

    fn encode_key<'a>(&self, key: &'a str) -> Result<Cow<'a, [u8]>, CodecError> {
        let to_json = |plan: &Plan| match is_text(plan) {
            true => Value::from(key).to_string(),
            false => key.to_owned(),
        };
        Ok(self.encode_part(to_json)?.raw.into())
    }
}

fn is_text(plan: &Plan) -> bool {
    matches!(plan.nodes[plan.root], Node::String)
}
