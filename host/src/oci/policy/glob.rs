//! Patterns of sources and tables.

use std::fmt;

use serde::Deserialize;

/// A pattern: `*` stands for any text within a segment of a path, and `**` for any text.
///
/// A pattern without them at its end matches no longer name, so that `a/codecs` does not match `a/codecs-of-others`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Glob(String);

impl From<String> for Glob {
    fn from(text: String) -> Self {
        // References elsewhere begin with the scheme.
        Self(text.strip_prefix("oci://").map_or(text.clone(), str::to_owned))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Glob {
    /// Whether a name matches the pattern as a whole.
    pub(crate) fn matches(&self, name: &str) -> bool {
        // What of the pattern may come next, as positions in it. All are advanced by each byte, so the time is bounded.
        let pattern = self.0.as_bytes();
        let mut states = vec![false; pattern.len() + 1];
        states[0] = true;
        skip_stars(pattern, &mut states);
        for byte in name.bytes() {
            let mut next = vec![false; pattern.len() + 1];
            for (at, _) in states.iter().enumerate().filter(|(at, is_set)| **is_set && *at < pattern.len()) {
                if pattern[at] == b'*' {
                    // The second star of two is the one that crosses segments.
                    let crosses = pattern.get(at + 1) == Some(&b'*') || (at > 0 && pattern[at - 1] == b'*');
                    next[at] |= crosses || byte != b'/';
                } else if pattern[at] == byte {
                    next[at + 1] = true;
                }
            }
            skip_stars(pattern, &mut next);
            states = next;
        }
        states[pattern.len()]
    }
}

/// A star may stand for nothing.
fn skip_stars(pattern: &[u8], states: &mut [bool]) {
    for at in 0..pattern.len() {
        if states[at] && pattern[at] == b'*' {
            states[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("a.b/codecs/**", "a.b/codecs/x", true),
            ("a.b/codecs/**", "a.b/codecs/x/y", true),
            ("a.b/codecs/**", "a.b/codecs-malicious/x", false),
            ("a.b/codecs/*", "a.b/codecs/x", true),
            ("a.b/codecs/*", "a.b/codecs/x/y", false),
            ("a.b/codecs", "a.b/codecs", true),
            ("a.b/codecs", "a.b/codecs-malicious", false),
            ("a.b/codecs", "a.b/codecs/x", false),
            ("a.b/*/x", "a.b/c/x", true),
            ("a.b/*/x", "a.b/c/d/x", false),
            ("a.b/**/x", "a.b/c/d/x", true),
            ("payments-*", "payments-eu", true),
            ("payments-*", "payments", false),
            ("*", "anything", true),
            ("*", "a/b", false),
            ("**", "a/b", true),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
        ] {
            assert_eq!(Glob(pattern.to_owned()).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_in_time() {
        let pattern = Glob("*a".repeat(1_000));
        assert!(!pattern.matches(&"a".repeat(5_000).replace("aa", "ab")));
    }
}
