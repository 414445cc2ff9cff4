//! A guest that looks schemas up. A value is the byte 0, the id of a schema in four bytes, and UTF-8 text. It decodes to
//! `{"schema": …, "references": […], "text": …}`. A value without that byte is malformed.
//!
//! It encodes `{"text": …}`, with the configured schema: `{"subject": …}` writes with the newest version,
//! `{"subject": …, "version": …}` with that one, and `{"subject": …, "register": …}` adds this Avro schema first.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;

use ktables_guest::schemas::{self, NewSchema, SchemaFormat};
use ktables_guest::{CodecError, Context, Encoded, Header, Info, Plugin, ValueCodec};
use serde_json::{Value, json};

/// The codec.
#[derive(Debug)]
pub struct SchemaUser {
    config: Value,
    /// The texts of the schemas, and the names of those that they refer to.
    known: Mutex<BTreeMap<u32, (String, Vec<String>)>>,
}

ktables_guest::export!(SchemaUser: Plugin, ValueCodec);

impl Plugin for SchemaUser {
    fn describe() -> Info {
        Info { name: "schema-user".to_owned(), version: "1".to_owned(), wants_headers: false }
    }

    fn configure(context: &Context) -> Result<Self, String> {
        let config: Value = serde_json::from_str(&context.config).map_err(|error| error.to_string())?;
        if config["early"] == true {
            schemas::by_id(1).map_err(|error| format!("{error:?}"))?;
        }
        Ok(Self { config, known: Mutex::default() })
    }
}

impl SchemaUser {
    fn id(&self) -> Result<u32, CodecError> {
        let subject = self.config["subject"].as_str().unwrap_or_default();
        if let Some(text) = self.config["register"].as_str() {
            let schema =
                NewSchema { format: SchemaFormat::Avro, text: text.to_owned(), references: Vec::new() };
            return schemas::register(subject, &schema).map_err(schemas::codec_error);
        }
        Ok(match self.config["version"].as_u64() {
            Some(version) => schemas::by_version(subject, version as u32).map_err(schemas::codec_error)?.id,
            None => schemas::latest(subject).map_err(schemas::codec_error)?.id,
        })
    }
}

impl ValueCodec for SchemaUser {
    fn decode<'a>(&self, raw: &'a [u8], _: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        let [0, a, b, c, d, text @ ..] = raw else {
            return Err(CodecError::Malformed("it does not begin with 0 and an id".to_owned()));
        };
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        let text = std::str::from_utf8(text).map_err(|error| CodecError::Malformed(error.to_string()))?;
        let mut known = self.known.lock().map_err(|_| CodecError::Other("poisoned".to_owned()))?;
        let (schema, references) = match known.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let schema = schemas::by_id(id).map_err(schemas::codec_error)?;
                let names = schema.references.into_iter().map(|reference| reference.name).collect();
                unknown.insert((schema.text, names))
            }
        };
        Ok(json!({ "schema": schema, "references": references, "text": text }).to_string().into())
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        let value: Value =
            serde_json::from_str(value).map_err(|error| CodecError::Malformed(error.to_string()))?;
        let text = value["text"].as_str().ok_or_else(|| CodecError::Invalid("no text".to_owned()))?;
        let id = self.id()?;
        Ok([&[0][..], &id.to_be_bytes(), text.as_bytes()].concat().into())
    }
}
