//! Checked JSON text on one line: what a table's rows hold.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// How deep arrays and objects may nest: what every JSON library accepts, and what
/// recursion over a value can take on a thread's stack.
const MAX_DEPTH: usize = 128;

/// The text, if it is one JSON text, without the line breaks between its tokens.
///
/// In valid JSON a line break stands only between tokens: inside a string it is
/// an error. NDJSON and server-sent events are line formats.
pub(crate) fn checked_json(text: &str) -> Result<Cow<'_, str>, String> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| error.to_string())?;
    // Text with few brackets is not deep, and counting them is quick.
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_DEPTH && depth(text) > MAX_DEPTH
    {
        return Err(format!("more than {MAX_DEPTH} levels of arrays and objects"));
    }
    if text.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Ok(text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect());
    }
    Ok(text.into())
}

/// How deep valid JSON nests.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::checked_json;

    #[test]
    fn line_breaks_go_and_nothing_else() {
        assert_eq!(checked_json("{\n  \"a\":\r\n 1}").as_deref(), Ok("{  \"a\": 1}"));
        assert_eq!(checked_json(r#""a\nb""#).as_deref(), Ok(r#""a\nb""#));
        assert_eq!(checked_json("null").as_deref(), Ok("null"));
    }

    #[test]
    fn what_is_not_one_json_text_is_refused() {
        for text in ["", "nul", "1 2", "{\"a\":1", "\"a\nb\"", "NaN", "[1,]"] {
            assert!(checked_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let nested = |levels: usize| format!("{}\"]\\\"[\"{}", "[".repeat(levels), "]".repeat(levels));
        assert!(checked_json(&nested(128)).is_ok());
        for levels in [129, 1_000_000] {
            assert!(checked_json(&nested(levels)).is_err());
        }
        // Many brackets, none of them deep.
        assert!(checked_json(&format!("[{}[]]", "[],".repeat(1000))).is_ok());
        assert!(checked_json(&format!("\"{}\"", "[".repeat(1000))).is_ok());
    }
}
