//! A codec of keys that are a big-endian `u32`, as a decimal number.

use std::borrow::Cow;

use ktables_guest::{CodecError, KeyCodec};

#[derive(Default)]
pub struct Id;

ktables_guest::export!(Id: KeyCodec);

impl KeyCodec for Id {
    fn decode_key<'a>(&self, raw: &'a [u8]) -> Result<Cow<'a, str>, CodecError> {
        let bytes: [u8; 4] = raw
            .try_into()
            .map_err(|_| CodecError::Malformed(format!("expected 4 bytes, found {}", raw.len())))?;
        Ok(u32::from_be_bytes(bytes).to_string().into())
    }

    fn encode_key<'a>(&self, key: &'a str) -> Result<Cow<'a, [u8]>, CodecError> {
        // Each key has one text only: no leading zeros.
        let number = key.parse::<u32>().ok().filter(|number| number.to_string() == key);
        let invalid = || CodecError::Invalid("expected a whole number below 2^32".to_owned());
        Ok(number.ok_or_else(invalid)?.to_be_bytes().to_vec().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoded_key_encodes_to_the_same_bytes() {
        let raw = [0, 0, 1, 0];
        let text = Id.decode_key(&raw).unwrap();
        assert_eq!(text, "256");
        assert_eq!(*Id.encode_key(&text).unwrap(), raw);
    }
}
