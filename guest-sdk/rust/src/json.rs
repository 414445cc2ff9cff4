//! Checks JSON as the host does.

use crate::CodecError;

/// Checks that a value is JSON, for codecs whose records contain JSON. It is the check that the host makes of
/// every answer, and it is faster than parsing.
///
/// ```
/// assert!(ktables_guest::check_json("[1, 2]").is_ok());
/// assert!(ktables_guest::check_json("[1, 2").is_err());
/// ```
///
/// # Errors
///
/// [`CodecError::Malformed`] if the value is not JSON, with a text that says what is wrong, and where.
pub fn check_json(text: &str) -> Result<(), CodecError> {
    match ktables_json::check(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(CodecError::Malformed(format!("not JSON: {error}"))),
    }
}
