//! The built-in codecs: `utf8`, `bytes`, `json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::codec::{
    Answers, CodecFailure, Encoded, KeyCodec, PackedAnswers, RejectKind, Rejection, ValueCodec,
};
use crate::log::Header;
use crate::packed::Packed;

/// UTF-8 text: as a key the text itself, as a value a JSON string.
#[derive(Debug, Clone, Copy)]
pub struct Utf8;

/// Any bytes, as base64 text (RFC 4648, with padding): as a key the text itself,
/// as a value a JSON string.
#[derive(Debug, Clone, Copy)]
pub struct Bytes;

/// JSON text: as a value checked and left as it is, but for line breaks between
/// its tokens; as a key left exactly as it is.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl KeyCodec for Utf8 {
    fn is_built_in(&self) -> bool {
        true
    }

    fn decode<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        unchanged(raw, |raw| text(raw).map(drop))
    }

    fn encode(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        each(keys, |key| Ok(key.as_bytes()))
    }
}

impl ValueCodec for Utf8 {
    fn is_built_in(&self) -> bool {
        true
    }

    fn decode<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        each(raw.iter(), |raw| Ok(json_string(text(raw)?)))
    }

    fn encode(&self, values: &[&str]) -> Answers<Encoded> {
        Ok(values.iter().map(|value| Ok(encoded(string(value)?))).collect())
    }
}

impl KeyCodec for Bytes {
    fn is_built_in(&self) -> bool {
        true
    }

    fn decode<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        each(raw.iter(), |raw| Ok(BASE64.encode(raw)))
    }

    fn encode(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        each(keys, |key| bytes(key))
    }
}

impl ValueCodec for Bytes {
    fn is_built_in(&self) -> bool {
        true
    }

    fn decode<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        each(raw.iter(), |raw| Ok(json_string(&BASE64.encode(raw))))
    }

    fn encode(&self, values: &[&str]) -> Answers<Encoded> {
        Ok(values.iter().map(|value| Ok(encoded(bytes(&string(value)?)?))).collect())
    }
}

impl KeyCodec for Json {
    fn is_built_in(&self) -> bool {
        true
    }

    fn decode<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        unchanged(raw, |raw| json(text(raw)?))
    }

    fn encode(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        each(keys, |key| {
            json(key)?;
            Ok(key.as_bytes())
        })
    }
}

impl ValueCodec for Json {
    fn is_built_in(&self) -> bool {
        true
    }

    fn decode<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        let mut answers = PackedAnswers::unchanged(raw);
        answers.check_json(|_, reason| Rejection::built_in(RejectKind::Malformed, reason));
        Ok(answers)
    }

    fn encode(&self, values: &[&str]) -> Answers<Encoded> {
        let encode = |value: &&str| {
            json(value)?;
            Ok(encoded(*value))
        };
        Ok(values.iter().map(encode).collect())
    }
}

/// Built-in codecs always answer.
fn each<I: IntoIterator, T: AsRef<[u8]>>(
    items: I,
    convert: impl FnMut(I::Item) -> Result<T, Rejection>,
) -> Result<PackedAnswers<'static>, CodecFailure> {
    Ok(items.into_iter().map(convert).collect())
}

/// The items themselves, those aside that do not pass a check.
fn unchanged(
    items: &Packed,
    check: impl Fn(&[u8]) -> Result<(), Rejection>,
) -> Result<PackedAnswers<'_>, CodecFailure> {
    let mut answers = PackedAnswers::unchanged(items);
    answers.check(|_, item| check(item));
    Ok(answers)
}

fn text(raw: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(raw)
        .map_err(|error| Rejection::built_in(RejectKind::Malformed, format!("not UTF-8: {error}")))
}

fn json(text: &str) -> Result<(), Rejection> {
    ktables_json::check(text)
        .map(drop)
        .map_err(|error| Rejection::built_in(RejectKind::Malformed, format!("not JSON: {error}")))
}

fn json_string(text: &str) -> String {
    // OK because a string always serializes.
    serde_json::to_string(text).expect("a string")
}

fn string(value: &str) -> Result<String, Rejection> {
    serde_json::from_str(value).map_err(|error| {
        Rejection::built_in(RejectKind::Invalid, format!("this codec writes JSON strings only: {error}"))
    })
}

fn bytes(text: &str) -> Result<Vec<u8>, Rejection> {
    BASE64.decode(text).map_err(|error| {
        Rejection::built_in(RejectKind::Invalid, format!("not base64 (RFC 4648, with padding): {error}"))
    })
}

fn encoded(raw: impl Into<Vec<u8>>) -> Encoded {
    Encoded { raw: raw.into(), headers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(answers: Result<PackedAnswers<'_>, CodecFailure>) -> Result<String, Rejection> {
        let bytes = answers.expect("built in").into_one()?;
        Ok(String::from_utf8(bytes).expect("text"))
    }

    fn one<T>(answers: Answers<T>) -> Result<T, Rejection> {
        answers.expect("built in").remove(0)
    }

    fn pack(item: &[u8]) -> Packed {
        [item].iter().collect()
    }

    proptest! {
        #[test]
        fn keys_come_back(raw: Vec<u8>) {
            let codecs: [&dyn KeyCodec; 3] = [&Utf8, &Bytes, &Json];
            for codec in codecs {
                if let Ok(key) = text_of(codec.decode(&pack(&raw))) {
                    prop_assert_eq!(codec.encode(&[&key]).unwrap().into_one().unwrap(), raw.clone());
                }
            }
        }

        #[test]
        fn values_come_back(raw: Vec<u8>) {
            let codecs: [&dyn ValueCodec; 2] = [&Utf8, &Bytes];
            for codec in codecs {
                if let Ok(value) = text_of(codec.decode(&pack(&raw), &[])) {
                    prop_assert!(ktables_json::check(&value).is_ok());
                    prop_assert_eq!(one(codec.encode(&[&value])).unwrap().raw, raw.clone());
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_rejected() {
        let utf8: &dyn KeyCodec = &Utf8;
        assert_eq!(text_of(utf8.decode(&pack(b"\xff"))).unwrap_err().kind, RejectKind::Malformed);
        let json: &dyn ValueCodec = &Json;
        assert_eq!(text_of(json.decode(&pack(b"{"), &[])).unwrap_err().kind, RejectKind::Malformed);
        let bytes: &dyn ValueCodec = &Bytes;
        assert_eq!(one(bytes.encode(&["\"%\""])).unwrap_err().kind, RejectKind::Invalid);
        assert_eq!(one(bytes.encode(&["1"])).unwrap_err().kind, RejectKind::Invalid);
    }
}
