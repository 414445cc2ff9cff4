//! Keys have one form, as bytes and as text: Kafka compacts by their bytes, and users name them by their text.

use ktables_guest::CodecError;

/// The longest key that an error shows.
const MAX_SHOWN_BYTES: usize = 1000;

/// Decodes a key. Refuses bytes that are not the ones that its text is encoded to.
///
/// # Errors
///
/// If the key has other bytes than its text is encoded to, or `to_text` or `to_bytes` fails.
pub fn decode_key(
    raw: &[u8],
    to_text: impl Fn(&[u8]) -> Result<String, CodecError>,
    to_bytes: impl Fn(&str) -> Result<Vec<u8>, CodecError>,
) -> Result<String, CodecError> {
    let text = to_text(raw)?;
    match to_bytes(&text)? == raw {
        true => Ok(text),
        false => Err(CodecError::Malformed(
            "it is not in canonical form: the same key is written with other bytes".to_owned(),
        )),
    }
}

/// Encodes a key. Refuses a text that is not the one that its bytes are decoded to.
///
/// # Errors
///
/// If the key has another text than its bytes are decoded to, or `to_bytes` or `to_text` fails.
pub fn encode_key(
    text: &str,
    to_bytes: impl Fn(&str) -> Result<Vec<u8>, CodecError>,
    to_text: impl Fn(&[u8]) -> Result<String, CodecError>,
) -> Result<Vec<u8>, CodecError> {
    let raw = to_bytes(text)?;
    let canonical = to_text(&raw)?;
    match canonical == text {
        true => Ok(raw),
        false if canonical.len() <= MAX_SHOWN_BYTES => {
            Err(CodecError::Invalid(format!("it is not in canonical form: write {canonical}")))
        }
        false => Err(CodecError::Invalid("it is not in canonical form".to_owned())),
    }
}
