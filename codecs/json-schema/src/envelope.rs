//! Values in an envelope, as Python's kafkaesk writes them: JSON with the subject and the version of the schema, and the
//! data.

use ktables_guest::CodecError;
use ktables_guest::schemas;
use schema_framing::{SchemaId, shorten};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A value with the name of its schema.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope<'a> {
    /// `SUBJECT:VERSION`.
    pub(crate) schema: String,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
}

impl<'a> Envelope<'a> {
    pub(crate) fn read(raw: &'a [u8]) -> Result<Self, CodecError> {
        let error = |reason: String| {
            CodecError::Malformed(format!(
                r#"it is not {{"schema": "SUBJECT:VERSION", "data": …}}: {reason}"#
            ))
        };
        // An array of the two would be read, too.
        if !raw.trim_ascii_start().starts_with(b"{") {
            return Err(error("it is no object".to_owned()));
        }
        serde_json::from_slice(raw).map_err(|reason| error(reason.to_string()))
    }
}

/// Returns the id of the schema with this name.
pub(crate) fn find_version(name: &str) -> Result<SchemaId, CodecError> {
    let (subject, version) = name
        .rsplit_once(':')
        .and_then(|(subject, version)| {
            Some((subject, version.parse().ok().filter(|number: &u32| number.to_string() == version)?))
        })
        .ok_or_else(|| {
            CodecError::Malformed(format!("its schema {:?} is not SUBJECT:VERSION", shorten(name)))
        })?;
    let found = schemas::by_version(subject, version).map_err(schemas::codec_error)?;
    Ok(SchemaId::Number(found.id))
}

/// Returns a value with the name of its schema.
pub(crate) fn write(subject: &str, version: u32, data: &str) -> String {
    format!(r#"{{"schema":{},"data":{data}}}"#, Value::from(format!("{subject}:{version}")))
}
