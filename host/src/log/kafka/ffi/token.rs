//! Reads OAuth tokens from a file.

use std::ffi::CString;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

/// An OAuth token (a JWT) with the claims that librdkafka needs.
pub(in crate::log::kafka) struct Token {
    pub(in crate::log::kafka) text: CString,
    /// The time of expiry, in milliseconds since 1970. librdkafka requests another token before.
    pub(in crate::log::kafka) expires: i64,
    pub(in crate::log::kafka) principal: CString,
}

/// The claims of a token that are read here. Issuer and signature are checked by the broker only.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
    #[serde(default)]
    sub: String,
}

impl Token {
    /// Reads a token from a file.
    ///
    /// # Errors
    ///
    /// A text that names the file and the reason, and quotes nothing of the contents, which are a secret.
    pub(in crate::log::kafka) fn read(file: &Path) -> Result<Self, String> {
        let with_path =
            |reason: &str| format!("cannot read an OAuth token from {}: {reason}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| with_path(&error.to_string()))?;
        Self::parse(text.trim()).map_err(with_path)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let claims = text.split('.').nth(1).ok_or("it is not a JWT")?;
        let claims =
            BASE64_URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).map_err(|_| "it is not a JWT")?;
        let claims: Claims =
            serde_json::from_slice(&claims).map_err(|_| "its claims are not JSON with a number `exp`")?;
        let c_text = |text: &str| CString::new(text).map_err(|_| "it contains a NUL byte");
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a time beyond 64 bits becomes the largest one, which never comes either"
        )]
        let expires = (claims.exp * 1000.0) as i64;
        Ok(Self { text: c_text(text)?, expires, principal: c_text(&claims.sub)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_and_errors_do_not_quote_the_token() {
        let token = |claims: &str| format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let read = Token::parse(&token(r#"{"exp": 1.5, "sub": "me", "aud": []}"#)).unwrap();
        assert_eq!((read.expires, read.principal.to_str()), (1500, Ok("me")));
        for bad in ["", "sEcReT", "a.sEcReT.c", &token("sEcReT"), &token(r#"{"sub": "sEcReT"}"#)] {
            let reason = Token::parse(bad).err().unwrap();
            assert!(!reason.contains("sEcReT"), "{reason}");
        }
    }
}
