//! Bearer tokens: 256 random bits as text. The configuration has only their hashes.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rand::RngExt as _;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What a token begins with, so that tools which search for secrets find it.
const PREFIX: &str = "ktables_";

/// A new token. Its `Debug` does not show it.
pub(crate) struct NewToken(String);

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewToken")
    }
}

impl NewToken {
    /// Generates a token from the generator for keys.
    pub(crate) fn generate() -> Self {
        let bits: [u8; 32] = rand::rng().random();
        Self(format!("{PREFIX}{}", BASE64.encode(bits)))
    }

    /// The token. It is secret.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }
}

/// The SHA-256 of a token. A token has 256 random bits, so a slow hash would protect nothing, and would let
/// callers keep the processor busy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(crate) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl ConstantTimeEq for TokenHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid =
            || "it is not a SHA-256: write 64 hexadecimal digits (see `ktables token new`)".to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid())?;
        }
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_survives_its_text_form() {
        let token = NewToken::generate();
        assert_eq!(token.hash().to_string().parse::<TokenHash>().unwrap(), token.hash());
        assert_eq!(token.hash().to_string().to_uppercase().parse::<TokenHash>().unwrap(), token.hash());
        for text in ["", "abc", &"g".repeat(64), &"ä".repeat(32), &"0".repeat(66)] {
            assert!(text.parse::<TokenHash>().is_err(), "{text}");
        }
    }
}
