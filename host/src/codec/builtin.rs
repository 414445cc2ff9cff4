//! The built-in codecs: `utf8`, `bytes` and `json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::codec::{
    Answers, Codec, CodecFailure, Encoded, KeyCodec, PackedAnswers, RejectKind, RejectReason, ValueCodec,
};
use crate::log::Header;
use crate::packed::Packed;

/// UTF-8 text. A key becomes the text itself, a value becomes a JSON string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8;

/// Any bytes, as base64 text (RFC 4648, with padding). A key becomes the text itself, a value becomes a JSON
/// string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes;

/// JSON text. A value is checked, and line breaks between its tokens are removed. A key is checked, and its
/// bytes stay the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json;

impl Codec for Utf8 {
    fn is_built_in(&self) -> bool {
        true
    }

    fn identity(&self) -> String {
        "utf8".to_owned()
    }
}

impl Codec for Bytes {
    fn is_built_in(&self) -> bool {
        true
    }

    fn identity(&self) -> String {
        "bytes".to_owned()
    }
}

impl Codec for Json {
    fn is_built_in(&self) -> bool {
        true
    }

    fn identity(&self) -> String {
        "json".to_owned()
    }
}

impl KeyCodec for Utf8 {
    fn decode_keys<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        check_each(raw, |raw| parse_text(raw).map(drop))
    }

    fn encode_keys(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        convert_each(keys, |key| Ok(key.as_bytes()))
    }
}

impl ValueCodec for Utf8 {
    fn decode_values<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        convert_each(raw.iter(), |raw| Ok(to_json_string(parse_text(raw)?)))
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        Ok(values.iter().map(|value| Ok(without_headers(parse_string(value)?))).collect())
    }
}

impl KeyCodec for Bytes {
    fn decode_keys<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        convert_each(raw.iter(), |raw| Ok(BASE64.encode(raw)))
    }

    fn encode_keys(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        convert_each(keys, |key| decode_base64(key))
    }
}

impl ValueCodec for Bytes {
    fn decode_values<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        convert_each(raw.iter(), |raw| Ok(to_json_string(&BASE64.encode(raw))))
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        Ok(values.iter().map(|value| Ok(without_headers(decode_base64(&parse_string(value)?)?))).collect())
    }
}

impl KeyCodec for Json {
    fn decode_keys<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        check_each(raw, |raw| check_json(parse_text(raw)?))
    }

    fn encode_keys(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        convert_each(keys, |key| {
            check_json(key)?;
            Ok(key.as_bytes())
        })
    }
}

impl ValueCodec for Json {
    fn decode_values<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        let mut answers = PackedAnswers::unchanged(raw);
        answers.check_json(|_, reason| RejectReason::without_component(RejectKind::Malformed, reason));
        Ok(answers)
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        let encode = |value: &&str| {
            check_json(value)?;
            Ok(without_headers(*value))
        };
        Ok(values.iter().map(encode).collect())
    }
}

/// Converts each item. A call of a built-in codec never fails as a whole: it only rejects items.
fn convert_each<I: IntoIterator, T: AsRef<[u8]>>(
    items: I,
    convert: impl FnMut(I::Item) -> Result<T, RejectReason>,
) -> Result<PackedAnswers<'static>, CodecFailure> {
    Ok(items.into_iter().map(convert).collect())
}

/// Answers each item with the item itself, and rejects those that do not pass a check.
fn check_each(
    items: &Packed,
    check: impl Fn(&[u8]) -> Result<(), RejectReason>,
) -> Result<PackedAnswers<'_>, CodecFailure> {
    let mut answers = PackedAnswers::unchanged(items);
    answers.check(|_, item| check(item));
    Ok(answers)
}

fn parse_text(raw: &[u8]) -> Result<&str, RejectReason> {
    std::str::from_utf8(raw).map_err(|error| {
        RejectReason::without_component(RejectKind::Malformed, format!("not UTF-8: {error}"))
    })
}

fn check_json(text: &str) -> Result<(), RejectReason> {
    ktables_json::check(text)
        .map(drop)
        .map_err(|error| RejectReason::without_component(RejectKind::Malformed, format!("not JSON: {error}")))
}

fn to_json_string(text: &str) -> String {
    // OK because a string always serializes.
    serde_json::to_string(text).expect("a string")
}

fn parse_string(value: &str) -> Result<String, RejectReason> {
    serde_json::from_str(value).map_err(|error| {
        RejectReason::without_component(
            RejectKind::Invalid,
            format!("this codec only encodes JSON strings: {error}"),
        )
    })
}

fn decode_base64(text: &str) -> Result<Vec<u8>, RejectReason> {
    BASE64.decode(text).map_err(|error| {
        RejectReason::without_component(
            RejectKind::Invalid,
            format!("not base64 (RFC 4648, with padding): {error}"),
        )
    })
}

fn without_headers(raw: impl Into<Vec<u8>>) -> Encoded {
    Encoded { raw: raw.into(), headers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(answers: Result<PackedAnswers<'_>, CodecFailure>) -> Result<String, RejectReason> {
        let bytes = answers.expect("built in").into_one()?;
        Ok(String::from_utf8(bytes).expect("text"))
    }

    fn one<T>(answers: Answers<T>) -> Result<T, RejectReason> {
        answers.expect("built in").remove(0)
    }

    fn pack(item: &[u8]) -> Packed {
        [item].iter().collect()
    }

    proptest! {
        #[test]
        fn encoding_a_decoded_key_returns_its_bytes(raw: Vec<u8>) {
            let codecs: [&dyn KeyCodec; 3] = [&Utf8, &Bytes, &Json];
            for codec in codecs {
                if let Ok(key) = text_of(codec.decode_keys(&pack(&raw))) {
                    prop_assert_eq!(codec.encode_keys(&[&key]).unwrap().into_one().unwrap(), raw.clone());
                }
            }
        }

        #[test]
        fn encoding_a_decoded_value_returns_its_bytes(raw: Vec<u8>) {
            let codecs: [&dyn ValueCodec; 2] = [&Utf8, &Bytes];
            for codec in codecs {
                if let Ok(value) = text_of(codec.decode_values(&pack(&raw), &[])) {
                    prop_assert!(ktables_json::check(&value).is_ok());
                    prop_assert_eq!(one(codec.encode_values(&[&value])).unwrap().raw, raw.clone());
                }
            }
        }
    }

    #[test]
    fn malformed_input_is_rejected() {
        let utf8: &dyn KeyCodec = &Utf8;
        assert_eq!(text_of(utf8.decode_keys(&pack(b"\xff"))).unwrap_err().kind, RejectKind::Malformed);
        let json: &dyn ValueCodec = &Json;
        assert_eq!(text_of(json.decode_values(&pack(b"{"), &[])).unwrap_err().kind, RejectKind::Malformed);
        let bytes: &dyn ValueCodec = &Bytes;
        assert_eq!(one(bytes.encode_values(&["\"%\""])).unwrap_err().kind, RejectKind::Invalid);
        assert_eq!(one(bytes.encode_values(&["1"])).unwrap_err().kind, RejectKind::Invalid);
    }
}
