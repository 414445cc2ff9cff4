//! Makes text from outside safe to show in a terminal or a log line: escapes characters that could move the
//! cursor, begin a line, or change the direction of text, as JSON does, and truncates long text. All such
//! text passes through this module.

#[cfg(feature = "cli")]
use std::borrow::Cow;
use std::fmt::{self, Write};

/// How much of a text is shown, in bytes before they are escaped. Nobody reads more.
pub(crate) const SHOWN_BYTES: usize = 4 * 1024;

/// The maximum length of a name that a message quotes, in bytes.
const NAME_BYTES: usize = 256;

/// Text whose `Display` is safe to show and stays on one line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OneLine<'a> {
    text: &'a str,
    limit: usize,
}

/// Escapes text to one line, truncated to [`SHOWN_BYTES`].
pub(crate) fn one_line(text: &str) -> OneLine<'_> {
    OneLine { text, limit: SHOWN_BYTES }
}

/// Escapes text to one line, truncated to `limit` bytes.
pub(crate) fn one_line_within(text: &str, limit: usize) -> OneLine<'_> {
    OneLine { text, limit }
}

/// Escapes a key, a group or a name for a message, truncated to 256 bytes.
pub(crate) fn escape_name(text: &str) -> OneLine<'_> {
    one_line_within(text, NAME_BYTES)
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.text[..self.text.floor_char_boundary(self.limit)];
        write_escaped(f, shown, must_escape)?;
        match self.text.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, "… ({more} bytes more)"),
        }
    }
}

/// Escapes one of our own messages, which may have several lines. All lines but the first are indented, so
/// that quoted text cannot look like another message.
#[cfg(feature = "cli")]
pub(crate) fn message(text: &str) -> String {
    let lines: Vec<String> = text.lines().take(SHOWN_LINES).map(|line| one_line(line).to_string()).collect();
    let shown = lines.join("\n    ");
    match text.lines().count().saturating_sub(lines.len()) {
        0 => shown,
        more => format!("{shown}\n    … ({more} lines more)"),
    }
}

/// The maximum number of lines of a message.
#[cfg(feature = "cli")]
const SHOWN_LINES: usize = 40;

/// Escapes a line of JSON text for a terminal. The result is still the same JSON: the only control characters
/// below U+0020 in it are tabs between tokens, which become spaces. In strings, all are escaped already.
#[cfg(feature = "cli")]
pub(crate) fn json_for_terminal(json: &str) -> Cow<'_, str> {
    if !json.chars().any(must_escape) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    // OK because writing to a string never fails.
    write_escaped(&mut escaped, &json.replace('\t', " "), must_escape).expect("a string");
    Cow::Owned(escaped)
}

fn write_escaped(to: &mut impl Write, text: &str, escape: impl Fn(char) -> bool) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(&escape) {
        to.write_str(&rest[..at])?;
        let mut chars = rest[at..].chars();
        if let Some(found) = chars.next() {
            match found {
                '\n' => to.write_str("\\n")?,
                '\r' => to.write_str("\\r")?,
                '\t' => to.write_str("\\t")?,
                other => write!(to, "\\u{:04x}", u32::from(other))?,
            }
        }
        rest = chars.as_str();
    }
    to.write_str(rest)
}

/// Whether a character is a control character, a line or paragraph separator, or a bidirectional control.
fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200e}' | '\u{200f}'
                | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_escaped_and_others_are_not() {
        assert_eq!(one_line("a\x1b[31m\r\nb\u{9b}\u{202e}ä").to_string(), r"a\u001b[31m\r\nb\u009b\u202eä");
        assert_eq!(one_line_within("äää", 3).to_string(), "ä… (4 bytes more)");
        assert_eq!(message("a:\n- b\x07"), "a:\n    - b\\u0007");
        assert_eq!(json_for_terminal("\"\u{7f}\""), "\"\\u007f\"");
        assert_eq!(json_for_terminal("{\t\"a\":\t1}"), "{ \"a\": 1}");
    }

    proptest! {
        #[test]
        fn shown_text_has_no_control_characters(text: String, limit in 0..50_usize) {
            prop_assert!(!one_line_within(&text, limit).to_string().chars().any(must_escape));
            prop_assert!(message(&text).lines().skip(1).all(|line| line.starts_with("    ")));
        }

        #[test]
        fn escaped_json_has_the_same_content(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let shown: String = serde_json::from_str(&json_for_terminal(&json)).unwrap();
            prop_assert_eq!(shown, text);
        }
    }
}
