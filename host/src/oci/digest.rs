//! The digest of a manifest or a blob: SHA-256, the only algorithm that is supported.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::escape::one_line_within;
use crate::oci::OciError;

/// How much of a malformed digest an error repeats, in bytes.
const SHOWN: usize = 100;

/// A SHA-256 digest, `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the 64 hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the beginning of the digits, to name the digest in a summary for people.
    pub(crate) fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

/// Computes a digest of bytes that arrive in parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct DigestBuilder(Sha256);

impl DigestBuilder {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl FromStr for Digest {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let bad = |what: &str| {
            OciError::Usage(format!(
                "cannot read the digest `{}`: {what}. Write `sha256:` followed by 64 hex digits.",
                one_line_within(text, SHOWN)
            ))
        };
        let Some((algorithm, hex)) = text.split_once(':') else { return Err(bad("it is malformed")) };
        if algorithm != "sha256" {
            let is_name = !algorithm.is_empty() && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric());
            return Err(bad(&match is_name {
                true => format!("{} is not supported", one_line_within(algorithm, SHOWN)),
                false => "it is malformed".to_owned(),
            }));
        }
        let mut bytes = [0; 32];
        if hex.len() != 64 || !hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("it is malformed"));
        }
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            // OK because the digits were checked.
            let value = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
            *byte = value(digits[0]) << 4 | value(digits[1]);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_and_64_digits() {
        let digest = Digest::of(b"{}");
        let text = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        let mut builder = DigestBuilder::default();
        builder.update(b"{");
        builder.update(b"}");
        assert_eq!(builder.finish(), digest);
        let malformed = "it is malformed. Write `sha256:` followed by 64 hex digits.";
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:ab",
            &text[..70],
            &text.replace("44136f", "44136F"),
            "x",
            ":ab",
            "sha 256:a",
        ] {
            let error = text.parse::<Digest>().unwrap_err().to_string();
            assert_eq!(error, format!("cannot read the digest `{text}`: {malformed}"));
        }
    }

    #[test]
    fn other_algorithms_are_named() {
        let error = "sha512:ab".parse::<Digest>().unwrap_err().to_string();
        let expected = "cannot read the digest `sha512:ab`: sha512 is not supported. Write `sha256:` followed by 64 \
                        hex digits.";
        assert_eq!(error, expected);
    }
}
