//! Checks whether a text is JSON (RFC 8259), and does nothing else: no tree, no allocation, no recursion.
//! Hosts check the answers of codecs with it, and codecs check their input with it, so that both agree.
//!
//! This crate exists because every record is checked. It accepts the same texts as `serde_json` does when
//! it skips a value (a test compares them), in a third of the time. It accepts numbers of any size, and
//! escapes of lone surrogates, although a parser may be unable to represent them.

#![no_std]

mod scan;

use core::fmt;

/// The maximum number of nested arrays and objects, which is also the limit of `serde_json`.
pub const MAX_DEPTH: u32 = 127;

/// The properties of a valid JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Whether there are line breaks between the tokens. In valid JSON, strings contain none.
    pub has_line_breaks: bool,
}

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub problem: Problem,
    /// The position of the byte at which the problem was found, counted from 0.
    pub at: usize,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A value is missing.
    ExpectedValue,
    /// The name of an object member is missing.
    ExpectedName,
    /// The colon after the name of an object member is missing.
    ExpectedColon,
    /// A comma, or the end of the array or object, is missing.
    ExpectedCommaOrEnd,
    /// A digit of a number is missing.
    ExpectedDigit,
    /// A string contains a control character.
    ControlCharacter,
    /// A string contains an invalid escape.
    Escape,
    /// The text ends within a string.
    EndOfString,
    /// Arrays and objects are nested more than [`MAX_DEPTH`] levels deep.
    Depth,
    /// There is something after the value.
    Trailing,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self.problem {
            Problem::ExpectedValue => "expected a value",
            Problem::ExpectedName => "expected the name of an object member",
            Problem::ExpectedColon => "expected a colon",
            Problem::ExpectedCommaOrEnd => "expected a comma or the end of the array or object",
            Problem::ExpectedDigit => "expected a digit",
            Problem::ControlCharacter => "unescaped control character in a string",
            Problem::Escape => "invalid escape in a string",
            Problem::EndOfString => "the text ends within a string",
            Problem::Depth => {
                return write!(f, "nesting deeper than {MAX_DEPTH} levels at byte {}", self.at);
            }
            Problem::Trailing => "unexpected text after the value",
        };
        write!(f, "{problem} at byte {}", self.at)
    }
}

impl core::error::Error for Error {}

/// Checks that a text is one JSON value, which may have white space around it.
///
/// ```
/// assert!(ktables_json::check(r#"{"a": [1, null]}"#).is_ok());
/// let error = ktables_json::check(r#"{"a": [1,]}"#).unwrap_err();
/// assert_eq!(error.to_string(), "expected a value at byte 9");
/// ```
///
/// # Errors
///
/// [`Error`] if the text is not JSON: what is wrong, and where.
pub fn check(text: &str) -> Result<Checked, Error> {
    scan::scan(text.as_bytes())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn compare_with_serde(text: &str) -> Result<(), TestCaseError> {
        let theirs = serde_json::from_str::<IgnoredAny>(text);
        let ours = check(text);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {:?} and {:?}", text, ours, theirs);
        Ok(())
    }

    /// JSON of all kinds, with white space wherever JSON allows it.
    fn json() -> impl Strategy<Value = String> {
        let space = || "[ \t\n\r]{0,2}";
        let leaf = prop_oneof![
            Just("null".to_string()),
            Just("true".to_string()),
            Just("false".to_string()),
            "-?(0|[1-9][0-9]{0,10})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?",
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            "\"(\\\\[\"\\\\/bfnrt]|\\\\u00[0-9a-fA-F]{2}|[a-zäß ]){0,20}\"",
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let spaced = (space(), inner.clone(), space()).prop_map(|(a, json, b)| format!("{a}{json}{b}"));
            let member =
                (space(), any::<String>(), space(), inner, space()).prop_map(|(a, name, b, json, c)| {
                    format!("{a}{}{b}:{json}{c}", serde_json::to_string(&name).unwrap())
                });
            prop_oneof![
                proptest::collection::vec(spaced, 0..6).prop_map(|items| format!("[{}]", items.join(","))),
                proptest::collection::vec(member, 0..6)
                    .prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn json_is_accepted(text in json()) {
            prop_assert!(check(&text).is_ok(), "{}: {:?}", text, check(&text));
            compare_with_serde(&text)?;
        }

        #[test]
        fn serde_agrees_about_damaged_json(text in json(), at: usize, with in "[\\[\\]{},:\"\\\\0-9a-f.+eE \n-]?") {
            let letters: Vec<char> = text.chars().collect();
            let at = at % letters.len();
            let changed: String = letters[..at].iter().copied().chain(with.chars()).chain(letters[at + 1..].iter().copied()).collect();
            compare_with_serde(&changed)?;
            let cut: String = letters[..at].iter().collect();
            compare_with_serde(&cut)?;
        }

        #[test]
        fn serde_agrees_about_any_text(text in "[\\[\\]{},:\"\\\\0-9truefalsn.+eE \n\u{1}ä-]{0,12}") {
            compare_with_serde(&text)?;
        }

        #[test]
        fn line_breaks_are_reported(text in json()) {
            let has_line_breaks = text.contains(['\n', '\r']);
            prop_assert_eq!(check(&text).unwrap().has_line_breaks, has_line_breaks);
        }
    }

    #[test]
    fn deeper_nesting_than_the_limit_is_refused() {
        let arrays = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        for text in [arrays(127), objects(127)] {
            assert!(check(&text).is_ok());
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
        for text in [arrays(128), objects(128), arrays(1_000_000)] {
            assert_eq!(check(&text).unwrap_err().problem, Problem::Depth);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_err());
        }
    }

    #[test]
    fn the_end_of_a_string_is_found_at_any_length() {
        for len in 0..70 {
            let filler = "x".repeat(len);
            assert!(check(&format!("\"{filler}\"")).is_ok());
            assert!(check(&format!("\"{filler}\\n\"")).is_ok());
            assert_eq!(check(&format!("\"{filler}\u{1f}\"")).unwrap_err().at, len + 1);
            assert_eq!(check(&format!("\"{filler}")).unwrap_err().problem, Problem::EndOfString);
        }
    }
}
