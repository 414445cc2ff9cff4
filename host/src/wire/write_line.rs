//! Writes as lines of JSON.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::writer::{Target, Write};

/// A line of the input. The fields of a dump that begin with an underscore here are accepted and ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputLine {
    key: Option<String>,
    group: Option<String>,
    member: Option<String>,
    #[serde(default, deserialize_with = "deserialize_present")]
    value: Option<Box<RawValue>>,
    #[serde(default)]
    delete: bool,
    #[serde(rename = "partition")]
    _partition: Option<i32>,
    #[serde(rename = "offset")]
    _offset: Option<i64>,
    #[serde(rename = "timestamp")]
    _timestamp: Option<i64>,
    #[serde(rename = "rejected")]
    _rejected: Option<IgnoredAny>,
    #[serde(default)]
    expired: bool,
}

/// Deserializes a field that is present, so that JSON `null` becomes `Some`.
fn deserialize_present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// A line that describes a write.
#[derive(Debug)]
pub(crate) enum WriteLine {
    Write(Write),
    /// An entry that was expired when it was dumped.
    Expired(Write),
    Blank,
}

/// Parses a line, as a dump has it: `{"key": …, "value": …}`, with `group` and `member` in place of `key`, or with
/// `"delete": true` in place of `value`. An error says what to write.
pub(crate) fn parse_write_line(bytes: &[u8]) -> Result<WriteLine, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.trim().is_empty() {
        return Ok(WriteLine::Blank);
    }
    if !text.trim_start().starts_with('{') {
        return Err("it is not a JSON object: write {\"key\": …, \"value\": …}".to_owned());
    }
    // The line has a number of its own.
    let invalid = |error: serde_json::Error| error.to_string().replace(" at line 1 column ", " at column ");
    let line: InputLine = serde_json::from_str(text).map_err(invalid)?;
    let target = match (line.key, line.group, line.member) {
        (Some(key), None, None) => Target::Key(key),
        (None, Some(group), Some(member)) => Target::Member { group, member },
        _ => return Err("it needs either \"key\", or \"group\" and \"member\", and not both".to_owned()),
    };
    let value = match (line.value, line.delete) {
        (Some(value), false) => Some(value.get().to_owned()),
        (None, true) => None,
        _ => return Err("it needs either \"value\" or \"delete\": true, and not both".to_owned()),
    };
    let write = Write { target, value };
    Ok(if line.expired { WriteLine::Expired(write) } else { WriteLine::Write(write) })
}

/// A line of output, which [`parse_write_line`] reads.
#[derive(Serialize)]
struct OutputLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delete: bool,
}

/// Formats a write as a line with its line feed. The value must be JSON, as that of a parsed line is.
pub(crate) fn format_write_line(write: &Write) -> Vec<u8> {
    let (key, group, member) = match &write.target {
        Target::Key(key) => (Some(&**key), None, None),
        Target::Member { group, member } => (None, Some(&**group), Some(&**member)),
    };
    // OK because the values of lines were read from JSON.
    let value = write.value.as_deref().map(|value| serde_json::from_str(value).expect("JSON"));
    let delete = value.is_none();
    // OK because texts always serialize.
    let mut line = serde_json::to_vec(&OutputLine { key, group, member, value, delete }).expect("serializes");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_survives_its_line() {
        let member = || Target::Member { group: "g\n".to_owned(), member: String::new() };
        for (target, value) in [
            (Target::Key("a\"b".to_owned()), Some("null")),
            (Target::Key(String::new()), None),
            (member(), Some("[1.00, {\"a\": 1}]")),
            (member(), None),
        ] {
            let write = Write { target, value: value.map(str::to_owned) };
            let line = format_write_line(&write);
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            let Ok(WriteLine::Write(parsed)) = parse_write_line(&line) else { panic!("{line:?}") };
            assert_eq!(format!("{parsed:?}"), format!("{write:?}"));
        }
    }
}
