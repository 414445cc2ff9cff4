//! A value codec for a compact binary record of a service instance, which becomes JSON, and a key codec for
//! 16-byte keys, which become UUID text.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version: 1 |
//! | 1 | flags: 1 healthy, 2 draining |
//! | 2 | port, big-endian |
//! | 4 | weight, big-endian |
//! | 8 | start, milliseconds since 1970, big-endian |
//! | 1 + n | host: length, UTF-8 |
//! | 1 | number of tags |
//! | 1 + n each | tag: length, UTF-8 |

use std::borrow::Cow;

use ktables_guest::{CodecError, Encoded, Header, KeyCodec, ValueCodec};
use serde::{Deserialize, Serialize};

/// The codec.
#[derive(Debug, Default)]
pub struct ServiceRecord;

ktables_guest::export!(ServiceRecord: ValueCodec, KeyCodec);

/// The content of a record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service<'a> {
    #[serde(borrow)]
    host: Cow<'a, str>,
    port: u16,
    weight: u32,
    healthy: bool,
    draining: bool,
    started: u64,
    #[serde(borrow)]
    tags: Vec<Cow<'a, str>>,
}

impl ValueCodec for ServiceRecord {
    fn decode<'a>(&self, raw: &'a [u8], _: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        let mut fields = Fields { raw, at: 0 };
        let version = fields.read_byte("version")?;
        if version != 1 {
            return Err(CodecError::Unsupported(format!("unsupported version {version}, expected 1")));
        }
        let flags = fields.read_byte("flags")?;
        if flags > 3 {
            return Err(CodecError::Invalid(format!("unknown flags {flags:#04x}, expected only 1 and 2")));
        }
        let service = Service {
            healthy: flags & 1 != 0,
            draining: flags & 2 != 0,
            port: u16::from_be_bytes(fields.read_array("port")?),
            weight: u32::from_be_bytes(fields.read_array("weight")?),
            started: u64::from_be_bytes(fields.read_array("start")?),
            host: fields.read_text("host")?.into(),
            tags: (0..fields.read_byte("number of tags")?)
                .map(|_| Ok(fields.read_text("tag")?.into()))
                .collect::<Result<_, _>>()?,
        };
        if fields.at != raw.len() {
            return Err(CodecError::Malformed(format!("{} bytes after the last tag", raw.len() - fields.at)));
        }
        serde_json::to_string(&service).map(Into::into).map_err(|error| CodecError::Other(error.to_string()))
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        let invalid = |error: serde_json::Error| CodecError::Invalid(error.to_string());
        // An object: a struct could also be read from an array. If a field occurs twice, the last one counts.
        let members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(value).map_err(invalid)?;
        let members = serde_json::Value::Object(members);
        let service = Service::deserialize(&members).map_err(invalid)?;
        let mut raw = vec![1, u8::from(service.healthy) | u8::from(service.draining) << 1];
        raw.extend(service.port.to_be_bytes());
        raw.extend(service.weight.to_be_bytes());
        raw.extend(service.started.to_be_bytes());
        push_text(&mut raw, "host", &service.host)?;
        raw.push(to_byte("tags", service.tags.len())?);
        service.tags.iter().try_for_each(|tag| push_text(&mut raw, "tag", tag))?;
        Ok(raw.into())
    }
}

/// Keys have 16 bytes, and their text is a UUID in its canonical form.
impl KeyCodec for ServiceRecord {
    fn decode_key<'a>(&self, raw: &'a [u8]) -> Result<Cow<'a, str>, CodecError> {
        let id: [u8; 16] = raw
            .try_into()
            .map_err(|_| CodecError::Malformed(format!("expected a key of 16 bytes, found {}", raw.len())))?;
        let mut text = String::with_capacity(36);
        for (index, byte) in id.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        Ok(text.into())
    }

    fn encode_key<'a>(&self, key: &'a str) -> Result<Cow<'a, [u8]>, CodecError> {
        let invalid =
            || CodecError::Invalid(format!("expected a UUID in lower case, with hyphens; found {key:?}"));
        let hex: Vec<u8> = key.bytes().filter(|&byte| byte != b'-').collect();
        let digits =
            hex.iter().map(|&digit| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok()));
        let digits: Vec<u8> = digits.collect::<Option<_>>().ok_or_else(invalid)?;
        let raw: Vec<u8> =
            digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect();
        match self.decode_key(&raw) {
            Ok(canonical) if canonical == key => Ok(raw.into()),
            _ => Err(invalid()),
        }
    }
}

/// Reads the fields of a record, one after the other.
struct Fields<'a> {
    raw: &'a [u8],
    /// The position of the next field.
    at: usize,
}

impl<'a> Fields<'a> {
    fn read_bytes(&mut self, name: &str, len: usize) -> Result<&'a [u8], CodecError> {
        let field = self.raw.get(self.at..self.at + len).ok_or_else(|| {
            let remaining = self.raw.len() - self.at;
            CodecError::Malformed(format!(
                "{name} at byte {}: expected {len} bytes, found {remaining}",
                self.at
            ))
        })?;
        self.at += len;
        Ok(field)
    }

    fn read_array<const N: usize>(&mut self, name: &str) -> Result<[u8; N], CodecError> {
        let bytes = self.read_bytes(name, N)?;
        // OK because `read_bytes` returns as many bytes as were requested.
        Ok(bytes.try_into().expect("N bytes"))
    }

    fn read_byte(&mut self, name: &str) -> Result<u8, CodecError> {
        self.read_array::<1>(name).map(|[byte]| byte)
    }

    fn read_text(&mut self, name: &str) -> Result<&'a str, CodecError> {
        let len = self.read_byte(name)?;
        let at = self.at;
        std::str::from_utf8(self.read_bytes(name, len.into())?)
            .map_err(|error| CodecError::Malformed(format!("{name} at byte {at}: not UTF-8: {error}")))
    }
}

fn push_text(raw: &mut Vec<u8>, name: &str, text: &str) -> Result<(), CodecError> {
    raw.push(to_byte(name, text.len())?);
    raw.extend(text.as_bytes());
    Ok(())
}

fn to_byte(name: &str, len: usize) -> Result<u8, CodecError> {
    u8::try_from(len).map_err(|_| CodecError::Invalid(format!("{name}: length {len} exceeds the limit 255")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"host":"a.example","port":8080,"weight":7,"healthy":true,"draining":false,"started":1700000000000,"tags":["eu","ä"]}"#;

    #[test]
    fn decoding_an_encoded_record_returns_its_json() {
        let encoded = ServiceRecord.encode(JSON).unwrap();
        assert_eq!(ServiceRecord.decode(&encoded.raw, &[]).unwrap(), JSON);
    }

    #[test]
    fn a_record_of_the_wrong_length_is_malformed() {
        let raw = ServiceRecord.encode(JSON).unwrap().raw;
        for end in 0..raw.len() {
            let error = ServiceRecord.decode(&raw[..end], &[]).unwrap_err();
            assert!(matches!(error, CodecError::Malformed(_)), "{end}: {error:?}");
        }
        let more = [&raw[..], b"x"].concat();
        assert!(matches!(ServiceRecord.decode(&more, &[]), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn another_version_is_unsupported() {
        assert!(matches!(ServiceRecord.decode(&[2], &[]), Err(CodecError::Unsupported(_))));
    }

    #[test]
    fn only_the_canonical_text_of_a_key_is_accepted() {
        let raw: Vec<u8> = (0..16).map(|byte| byte * 16).collect();
        let text = ServiceRecord.decode_key(&raw).unwrap();
        assert_eq!(text, "00102030-4050-6070-8090-a0b0c0d0e0f0");
        assert_eq!(ServiceRecord.encode_key(&text).unwrap(), raw);
        for other in ["", "xyz", "00102030-4050-6070-8090-A0B0C0D0E0F0", "001020304050607080 90a0b0c0d0e0f0"]
        {
            assert!(ServiceRecord.encode_key(other).is_err(), "{other}");
        }
    }
}
