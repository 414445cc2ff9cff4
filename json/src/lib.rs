//! Whether a text is JSON (RFC 8259), and nothing else: no tree, no allocation, no
//! recursion. Hosts check with it what codecs answer, codecs what they are given, and
//! both agree.
//!
//! It exists because the check stands in the path of every record. It knows the same
//! texts as `serde_json` when that skips a value (a test holds it to that), in a third of
//! the time. Numbers of any size are JSON, and escapes of half a surrogate pair, which a
//! parser may have no value for.

#![no_std]

mod scan;

use core::fmt;

/// How deep arrays and objects may nest: as deep as `serde_json` parses.
pub const MAX_DEPTH: u32 = 127;

/// What was found in a JSON text besides that it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Whether line breaks stand between its tokens. In strings there are none.
    pub has_line_breaks: bool,
}

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// What should have been there, or should not.
    pub problem: Problem,
    /// The byte at which that showed, counted from 0.
    pub at: usize,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A value should have begun.
    ExpectedValue,
    /// A member's name should have begun.
    ExpectedName,
    /// A colon should have followed a member's name.
    ExpectedColon,
    /// A comma, or the end of the array or object.
    ExpectedCommaOrEnd,
    /// A digit.
    ExpectedDigit,
    /// A control character in a string.
    ControlCharacter,
    /// What follows a backslash is no escape.
    Escape,
    /// The text ends within a string.
    EndOfString,
    /// More than [`MAX_DEPTH`] levels of arrays and objects.
    Depth,
    /// Something follows the value.
    Trailing,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self.problem {
            Problem::ExpectedValue => "a value is expected",
            Problem::ExpectedName => "a member's name is expected",
            Problem::ExpectedColon => "a colon is expected",
            Problem::ExpectedCommaOrEnd => "a comma or the end of the array or object is expected",
            Problem::ExpectedDigit => "a digit is expected",
            Problem::ControlCharacter => "there is a control character in a string",
            Problem::Escape => "there is no such escape",
            Problem::EndOfString => "the text ends in a string",
            Problem::Depth => {
                return write!(f, "at byte {}, more than {MAX_DEPTH} levels of arrays and objects", self.at);
            }
            Problem::Trailing => "something follows the value",
        };
        write!(f, "at byte {}, {problem}", self.at)
    }
}

impl core::error::Error for Error {}

/// Checks that a text is one JSON value, with or without white space around it.
///
/// ```
/// assert!(ktables_json::check(r#"{"a": [1, null]}"#).is_ok());
/// let error = ktables_json::check(r#"{"a": [1,]}"#).unwrap_err();
/// assert_eq!(error.to_string(), "at byte 9, a value is expected");
/// ```
///
/// # Errors
///
/// [`Error`] says what is wrong, and where.
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

    fn check_like_serde(text: &str) -> Result<(), TestCaseError> {
        let theirs = serde_json::from_str::<IgnoredAny>(text);
        let own = check(text);
        prop_assert_eq!(own.is_ok(), theirs.is_ok(), "{}: {:?} and {:?}", text, own, theirs);
        Ok(())
    }

    /// JSON of all kinds, with white space where it may be.
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
        fn json_is_json(text in json()) {
            prop_assert!(check(&text).is_ok(), "{}: {:?}", text, check(&text));
            check_like_serde(&text)?;
        }

        #[test]
        fn json_with_a_fault_is_what_serde_says(text in json(), at: usize, with in "[\\[\\]{},:\"\\\\0-9a-f.+eE \n-]?") {
            let letters: Vec<char> = text.chars().collect();
            let at = at % letters.len();
            let changed: String = letters[..at].iter().copied().chain(with.chars()).chain(letters[at + 1..].iter().copied()).collect();
            check_like_serde(&changed)?;
            let cut: String = letters[..at].iter().collect();
            check_like_serde(&cut)?;
        }

        #[test]
        fn any_text_is_what_serde_says(text in "[\\[\\]{},:\"\\\\0-9truefalsn.+eE \n\u{1}ä-]{0,12}") {
            check_like_serde(&text)?;
        }

        #[test]
        fn line_breaks_are_seen(text in json()) {
            let in_strings_too = text.contains(['\n', '\r']);
            prop_assert_eq!(check(&text).unwrap().has_line_breaks, in_strings_too);
        }
    }

    #[test]
    fn depth_has_a_limit() {
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
    fn every_length_of_string_ends_where_it_ends() {
        for len in 0..70 {
            let filler = "x".repeat(len);
            assert!(check(&format!("\"{filler}\"")).is_ok());
            assert!(check(&format!("\"{filler}\\n\"")).is_ok());
            assert_eq!(check(&format!("\"{filler}\u{1f}\"")).unwrap_err().at, len + 1);
            assert_eq!(check(&format!("\"{filler}")).unwrap_err().problem, Problem::EndOfString);
        }
    }
}
