//! Values of arguments.

use std::time::Duration;

/// Parses a duration that is greater than zero.
pub(super) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("the duration must be greater than zero".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}
