//! The digest that identifies a component.

use sha2::{Digest, Sha256};

use crate::escape::one_line_within;
use crate::wasm::error::WasmError;
use crate::wasm::limits::MAX_NAME_BYTES;

/// Checks that a text has the format of [`digest_of`], in upper or lower case.
pub(super) fn check_digest(digest: &str) -> Result<(), WasmError> {
    let is_digest = digest.split_once(':').is_some_and(|(kind, hex)| {
        kind.eq_ignore_ascii_case("sha256")
            && hex.len() == 64
            && hex.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    if is_digest {
        return Ok(());
    }
    Err(WasmError::InvalidDigest { digest: one_line_within(digest, MAX_NAME_BYTES).to_string() })
}

/// Returns the digest of a component's bytes as it is written in configurations: `sha256:` and 64
/// hexadecimal digits.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
