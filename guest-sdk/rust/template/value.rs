//! A codec of values that are a big-endian `u32`, as a JSON number.

use std::borrow::Cow;

use ktables_guest::{CodecError, Encoded, Header, ValueCodec};

#[derive(Default)]
pub struct Counter;

ktables_guest::export!(Counter: ValueCodec);

impl ValueCodec for Counter {
    fn decode<'a>(&self, raw: &'a [u8], _headers: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        let bytes: [u8; 4] = raw
            .try_into()
            .map_err(|_| CodecError::Malformed(format!("expected 4 bytes, found {}", raw.len())))?;
        Ok(u32::from_be_bytes(bytes).to_string().into())
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        let number: u32 = value
            .trim()
            .parse()
            .map_err(|_| CodecError::Invalid("expected a whole number below 2^32".to_owned()))?;
        Ok(number.to_be_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoded_value_encodes_to_the_same_bytes() {
        let raw = [0, 0, 1, 0];
        let text = Counter.decode(&raw, &[]).unwrap();
        assert_eq!(text, "256");
        assert_eq!(Counter.encode(&text).unwrap().raw, raw);
    }
}
