//! Checked JSON text on one line: what a table's rows hold.

use std::borrow::Cow;

/// The text, if it is one JSON text, without the line breaks between its tokens.
///
/// In valid JSON a line break stands only between tokens: inside a string it is
/// an error. NDJSON and server-sent events are line formats.
pub(crate) fn checked_json(text: &str) -> Result<Cow<'_, str>, ktables_json::Error> {
    if ktables_json::check(text)?.has_line_breaks {
        return Ok(text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect());
    }
    Ok(text.into())
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
}
