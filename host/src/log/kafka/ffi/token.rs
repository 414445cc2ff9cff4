//! OAuth tokens from a file.

use std::ffi::CString;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

/// A token (JWT) as librdkafka wants it.
pub(in crate::log::kafka) struct Token {
    pub(in crate::log::kafka) text: CString,
    /// Milliseconds since 1970. Another one is asked for before.
    pub(in crate::log::kafka) expires: i64,
    pub(in crate::log::kafka) principal: CString,
}

/// What is read of a token; who it is from and whether it is genuine is for the
/// broker to see.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
    #[serde(default)]
    sub: String,
}

impl Token {
    /// Reads a file. What is wrong is said without its contents.
    pub(in crate::log::kafka) fn read(file: &Path) -> Result<Self, String> {
        let of_file = |reason: &str| format!("the token in {}: {reason}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| of_file(&error.to_string()))?;
        Self::parse(text.trim()).map_err(of_file)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let claims = text.split('.').nth(1).ok_or("it is no JWT")?;
        let claims =
            BASE64_URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).map_err(|_| "it is no JWT")?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| "it has no `exp` in its claims")?;
        let c_text = |text: &str| CString::new(text).map_err(|_| "there is a NUL in it");
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a time far beyond 64 bits is as good as their end"
        )]
        let expires = (claims.exp * 1000.0) as i64;
        Ok(Self { text: c_text(text)?, expires, principal: c_text(&claims.sub)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_and_nonsense_is_refused_without_being_quoted() {
        let token = |claims: &str| format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let read = Token::parse(&token(r#"{"exp": 1.5, "sub": "me", "aud": []}"#)).unwrap();
        assert_eq!((read.expires, read.principal.to_str()), (1500, Ok("me")));
        for bad in ["", "sEcReT", "a.sEcReT.c", &token("sEcReT"), &token(r#"{"sub": "sEcReT"}"#)] {
            let reason = Token::parse(bad).err().unwrap();
            assert!(!reason.contains("sEcReT"), "{reason}");
        }
    }
}
