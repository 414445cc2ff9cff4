//! A value codec for Debian control stanzas (deb822, as in `/var/lib/dpkg/status`), which become JSON
//! objects.
//!
//! ```text
//! Package: adduser                 {"Package": "adduser",
//! Description: add users      <->   "Description": "add users\nMore of it.\n\nAnd more."}
//!  More of it.
//!  .
//!  And more.
//! ```
//!
//! The value of a field is a JSON string: its first line without surrounding blanks, then its continuation
//! lines, each without its first space or tab. A continuation line ` .` stands for an empty line. Fields keep
//! their order. Text that a stanza cannot express is refused.
//!
//! The configuration `{"require": ["Package", ...]}` lists the fields that a stanza must have. The default is
//! `Package`.

use std::borrow::Cow;

use ktables_guest::{CodecError, Context, Encoded, Header, Info, Plugin, ValueCodec};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The codec. Its fields are the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deb822 {
    require: Vec<String>,
}

impl Default for Deb822 {
    fn default() -> Self {
        Self { require: vec!["Package".to_owned()] }
    }
}

ktables_guest::export!(Deb822: Plugin, ValueCodec);

impl Plugin for Deb822 {
    fn describe() -> Info {
        Info {
            name: "deb822".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wants_headers: false,
        }
    }

    fn configure(context: &Context) -> Result<Self, String> {
        serde_json::from_str(&context.config).map_err(|error| error.to_string())
    }
}

impl ValueCodec for Deb822 {
    fn decode<'a>(&self, raw: &'a [u8], _: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        let text = std::str::from_utf8(raw)
            .map_err(|error| CodecError::Malformed(format!("the stanza is not UTF-8 text: {error}")))?;
        let fields = parse(text)?;
        self.check(&fields)?;
        Ok(Value::Object(fields).to_string().into())
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        let fields: Map<String, Value> = serde_json::from_str(value)
            .map_err(|error| CodecError::Invalid(format!("the value must be a JSON object: {error}")))?;
        self.check(&fields)?;
        let mut stanza = String::new();
        for (name, value) in &fields {
            let text = value
                .as_str()
                .ok_or_else(|| CodecError::Invalid(format!("field {name}: the value must be a string")))?;
            write_field(&mut stanza, name, text)?;
        }
        Ok(stanza.into_bytes().into())
    }
}

impl Deb822 {
    /// Checks that a stanza has all required fields.
    fn check(&self, fields: &Map<String, Value>) -> Result<(), CodecError> {
        match self.require.iter().find(|name| !fields.contains_key(name.as_str())) {
            Some(name) => Err(CodecError::Invalid(format!("the stanza has no field {name}"))),
            None => Ok(()),
        }
    }
}

fn parse(text: &str) -> Result<Map<String, Value>, CodecError> {
    let mut fields = Map::new();
    let mut current: Option<(&str, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let malformed = |problem: &str| CodecError::Malformed(format!("line {number}: {problem}: {line:?}"));
        if let Some(continued) = line.strip_prefix([' ', '\t']) {
            let (_, value) = current.as_mut().ok_or_else(|| malformed("no field before this line"))?;
            value.push('\n');
            value.push_str(if continued == "." { "" } else { continued });
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("expected `Field: value`"))?;
        if !is_name(name) {
            return Err(malformed("invalid field name"));
        }
        add_field(&mut fields, current.replace((name, value.trim().to_owned())))?;
    }
    add_field(&mut fields, current)?;
    Ok(fields)
}

/// Adds a complete field, if there is one. Fails if the stanza has it already.
fn add_field(fields: &mut Map<String, Value>, field: Option<(&str, String)>) -> Result<(), CodecError> {
    let Some((name, value)) = field else { return Ok(()) };
    match fields.insert(name.to_owned(), Value::String(value)) {
        None => Ok(()),
        Some(_) => Err(CodecError::Invalid(format!("the stanza has field {name} twice"))),
    }
}

fn write_field(stanza: &mut String, name: &str, text: &str) -> Result<(), CodecError> {
    if !is_name(name) {
        return Err(CodecError::Invalid(format!("invalid field name: {name:?}")));
    }
    stanza.push_str(name);
    stanza.push(':');
    for (index, line) in text.split('\n').enumerate() {
        // Decoding would change these lines: it trims the first one, reads a dot as an empty line, and a
        // carriage return as a part of the line break.
        let is_lost = match index {
            0 => line.trim() != line,
            _ => line == "." || line.ends_with('\r'),
        };
        if is_lost {
            return Err(CodecError::Invalid(format!(
                "field {name}: a stanza cannot express the line {line:?}"
            )));
        }
        match (index, line) {
            (0, "") => {}
            (_, "") => stanza.push_str(" ."),
            (_, line) => {
                stanza.push(' ');
                stanza.push_str(line);
            }
        }
        stanza.push('\n');
    }
    Ok(())
}

/// Returns whether Debian policy 5.1 allows a field name: printable ASCII characters other than space and
/// colon, not beginning with `#` or `-`.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['#', '-'])
        && name.bytes().all(|b| matches!(b, 33..=126) && b != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZA: &str = "Package: adduser\nVersion: 3.134\nConffiles:\n /etc/adduser.conf cc34\nDescription: add users\n More of it.\n .\n  - a list\n";

    #[test]
    fn encoding_a_decoded_stanza_returns_its_bytes() {
        let codec = Deb822::default();
        let json = codec.decode(STANZA.as_bytes(), &[]).unwrap();
        assert!(json.contains(r#""Description":"add users\nMore of it.\n\n - a list""#), "{json}");
        assert!(json.contains(r#""Conffiles":"\n/etc/adduser.conf cc34""#), "{json}");
        assert_eq!(codec.encode(&json).unwrap().raw, STANZA.as_bytes());
    }

    #[test]
    fn invalid_stanzas_are_rejected_with_the_reason() {
        let codec = Deb822::default();
        for (text, part) in [
            ("Package: a\nnonsense", "line 2"),
            (" continued", "no field before"),
            ("Package: a\nPackage: b", "twice"),
            ("Version: 1", "no field Package"),
            ("", "no field Package"),
        ] {
            let error = codec.decode(text.as_bytes(), &[]).unwrap_err();
            assert!(format!("{error:?}").contains(part), "{error:?}");
        }
        assert!(matches!(codec.decode(b"\xff", &[]), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn text_that_a_stanza_cannot_express_is_refused() {
        let codec = Deb822::default();
        for text in ["a\n.", " a", "a ", "a\r\nb", "a\nb\r"] {
            let json = serde_json::json!({ "Package": "p", "Description": text }).to_string();
            assert!(matches!(codec.encode(&json), Err(CodecError::Invalid(_))), "{text:?}");
        }
    }

    #[test]
    fn every_stanza_of_the_sample_can_be_encoded_again() {
        let codec = Deb822::default();
        let sample = include_str!("../sample/status");
        let stanzas: Vec<&str> = sample.split("\n\n").filter(|stanza| !stanza.trim().is_empty()).collect();
        assert!(stanzas.len() > 20);
        for stanza in stanzas {
            let json = codec.decode(stanza.as_bytes(), &[]).unwrap();
            let encoded = codec.encode(&json).unwrap().raw;
            assert_eq!(codec.decode(&encoded, &[]).unwrap(), json);
        }
    }
}
