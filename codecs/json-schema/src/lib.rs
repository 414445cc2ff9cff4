//! The codec for JSON that is checked against a JSON Schema.
//!
//! A value names its schema, and the schema registry has it; or all values have the schema of the configuration. The text
//! of a value stays as it is.

use std::borrow::Cow;
use std::sync::Arc;

use ktables_guest::schemas::{Schema, SchemaFormat};
use ktables_guest::{CodecError, Context, Encoded, Header, Info, KeyCodec, Plugin, Role, ValueCodec};
use schema_framing::{
    Compiled, Configured, Frame, Framing, Registration, SchemaId, Write, decode_key, encode_key, write_frame,
};
use serde::Deserialize;
use serde_json::Value;

use check::Checker;
use envelope::{Envelope, find_version};

mod check;
mod envelope;
#[cfg(target_family = "wasm")]
mod random;
#[cfg(test)]
mod tests;

/// The configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// The schema of all values, which then have no id. Text, or JSON.
    plain: Option<Value>,
    /// The schema to write with. It is registered under the subject before the first write.
    schema: Option<Value>,
    write: Write,
    /// Whether the keyword `format` is checked.
    formats: bool,
    /// Whether a value is `{"schema": "SUBJECT:VERSION", "data": …}`.
    envelope: bool,
}

/// The codec.
#[derive(Debug)]
pub struct JsonSchema {
    settings: Settings,
    topic: String,
    role: Role,
    /// How values without an id are checked.
    plain: Option<Arc<Checker>>,
    /// How values are checked, by the id of their schema.
    checkers: Compiled<Checker>,
}

ktables_guest::export!(JsonSchema: Plugin, ValueCodec, KeyCodec);

/// Returns the text of a schema in the configuration.
fn schema_text(schema: &Value) -> String {
    match schema {
        Value::String(text) => text.clone(),
        schema => schema.to_string(),
    }
}

impl Plugin for JsonSchema {
    fn describe() -> Info {
        let (name, version) = ("json-schema".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Info { name, version, wants_headers: true }
    }

    fn configure(context: &Context) -> Result<Self, String> {
        let settings: Settings =
            serde_json::from_str(&context.config).map_err(|error| format!("config: {error}"))?;
        let configured = Configured { plain: settings.plain.is_some(), schema: settings.schema.is_some() };
        settings.write.check(context.role, configured)?;
        let has_id = settings.write.has_id() || settings.write.framing != Framing::default();
        if settings.envelope && (has_id || configured.plain || configured.schema) {
            let reason = "envelope names the subject and the version in each value: remove plain, schema, write.id and \
                          write.framing";
            return Err(reason.to_owned());
        }
        let compile = |name: &str, schema: &Option<Value>| {
            let compiled =
                schema.as_ref().map(|schema| Checker::compile(&schema_text(schema), &[], settings.formats));
            compiled.transpose().map_err(|error| format!("{name} is not a JSON Schema: {error}"))
        };
        compile("schema", &settings.schema)?;
        let plain = compile("plain", &settings.plain)?.map(Arc::new);
        let (topic, role) = (context.topic.clone(), context.role);
        Ok(Self { settings, topic, role, plain, checkers: Compiled::default() })
    }
}

impl JsonSchema {
    /// Returns the checker of a schema.
    fn checker(&self, id: SchemaId) -> Result<Arc<Checker>, CodecError> {
        self.checkers.get(id, SchemaFormat::Json, |schema: &Schema| {
            Checker::compile(&schema.text, &schema.references, self.settings.formats)
        })
    }

    /// Returns the JSON of a key or a value, and the checker that accepted it.
    fn decode_part<'a>(
        &self,
        raw: &'a [u8],
        headers: &[Header],
    ) -> Result<(&'a str, Arc<Checker>), CodecError> {
        let (json, checker) = match &self.plain {
            Some(checker) => (raw, checker.clone()),
            None if self.settings.envelope => {
                let Envelope { schema, data } = Envelope::read(raw)?;
                (data.get().as_bytes(), self.checker(find_version(&schema)?)?)
            }
            None => {
                let frame = Frame::read(raw, headers, self.role)?;
                self.settings.write.check_key(&self.topic, self.role, frame.id)?;
                (frame.data()?, self.checker(frame.id)?)
            }
        };
        let json = str::from_utf8(json)
            .map_err(|error| CodecError::Malformed(format!("its JSON is not UTF-8: {error}")))?;
        checker.check(json)?;
        Ok((json, checker))
    }

    fn encode_part(&self, to_json: impl Fn(&Checker) -> String) -> Result<Encoded, CodecError> {
        let checked = |checker: &Checker| {
            let json = to_json(checker);
            checker.check(&json).map(|()| json)
        };
        if let Some(checker) = &self.plain {
            return Ok(checked(checker)?.into_bytes().into());
        }
        if self.settings.envelope {
            let (subject, version) = self.settings.write.version(&self.topic, self.role)?;
            let json = checked(&*self.checker(SchemaId::Number(version.id))?)?;
            return Ok(envelope::write(&subject, version.version, &json).into_bytes().into());
        }
        let schema = self.settings.schema.as_ref().map(schema_text);
        let add = schema.as_deref().map(|text| Registration { format: SchemaFormat::Json, text });
        let id = self.settings.write.id(&self.topic, self.role, add)?;
        let json = checked(&*self.checker(SchemaId::Number(id))?)?;
        Ok(write_frame(self.settings.write.framing, id, self.role, &[], json.as_bytes()))
    }
}

impl ValueCodec for JsonSchema {
    fn decode<'a>(&self, raw: &'a [u8], headers: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        Ok(self.decode_part(raw, headers)?.0.into())
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        self.encode_part(|_| value.to_owned())
    }
}

/// The text of a key is its JSON without white space, or the text alone if the type of the schema is `string`.
impl KeyCodec for JsonSchema {
    fn decode_key<'a>(&self, raw: &'a [u8]) -> Result<Cow<'a, str>, CodecError> {
        decode_key(raw, |raw| self.key_text(raw), |text| self.key_bytes(text)).map(Cow::Owned)
    }

    fn encode_key<'a>(&self, key: &'a str) -> Result<Cow<'a, [u8]>, CodecError> {
        encode_key(key, |text| self.key_bytes(text), |raw| self.key_text(raw)).map(Cow::Owned)
    }
}

impl JsonSchema {
    fn key_text(&self, raw: &[u8]) -> Result<String, CodecError> {
        let (json, checker) = self.decode_part(raw, &[])?;
        match serde_json::from_str(json) {
            Ok(text) if checker.is_text => Ok(text),
            _ => Ok(without_white_space(json)),
        }
    }

    fn key_bytes(&self, key: &str) -> Result<Vec<u8>, CodecError> {
        let to_json = |checker: &Checker| match checker.is_text {
            true => Value::from(key).to_string(),
            false => without_white_space(key),
        };
        Ok(self.encode_part(to_json)?.raw)
    }
}

/// Returns JSON without white space between its parts, so that a key has one form.
fn without_white_space(json: &str) -> String {
    let (mut is_in_string, mut is_escaped) = (false, false);
    let is_kept = |next: &char| {
        match next {
            '"' if !is_escaped => is_in_string = !is_in_string,
            ' ' | '\t' | '\r' | '\n' if !is_in_string => return false,
            _ => {}
        }
        is_escaped = is_in_string && *next == '\\' && !is_escaped;
        true
    };
    json.chars().filter(is_kept).collect()
}
