//! Checks JSON as the host does.

use crate::CodecError;

/// Checks that a text is JSON, as the host checks every decoded value. For codecs whose records contain JSON:
/// it is faster than parsing.
///
/// ```
/// assert!(ktables_guest::check_json("[1, 2]").is_ok());
/// assert!(ktables_guest::check_json("[1, 2").is_err());
/// ```
///
/// # Errors
///
/// [`CodecError::Malformed`] if the text is not JSON, with a message that says what is wrong, and where.
pub fn check_json(text: &str) -> Result<(), CodecError> {
    match ktables_json::check(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(CodecError::Malformed(format!("not JSON: {error}"))),
    }
}
