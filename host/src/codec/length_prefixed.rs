//! The group scheme of Python's ktables: `{len}:{group}{member}`.

use crate::codec::{Answers, Codec, GroupKey, GroupScheme};

/// The maximum number of digits of a prefix. No group is long enough to need more.
const MAX_DIGITS: usize = 10;

/// The scheme of keys `{len}:{group}{member}`, where `len` is the length of the group in Unicode scalar
/// values.
///
/// A prefix must be canonical: ASCII digits without a sign and without a leading zero. Any other key is
/// foreign.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LengthPrefixed;

impl Codec for LengthPrefixed {
    fn is_built_in(&self) -> bool {
        true
    }

    fn identity(&self) -> String {
        "length-prefixed".to_owned()
    }
}

impl GroupScheme for LengthPrefixed {
    fn split_keys(&self, keys: &[&str]) -> Answers<Option<GroupKey>> {
        Ok(keys.iter().map(|key| Ok(split(key))).collect())
    }

    fn join_keys(&self, pairs: &[(&str, &str)]) -> Answers<Box<str>> {
        Ok(pairs.iter().map(|(group, member)| Ok(join(group, member).into())).collect())
    }
}

fn split(key: &str) -> Option<GroupKey> {
    let digits = key.bytes().take(MAX_DIGITS + 1).take_while(u8::is_ascii_digit).count();
    let (prefix, rest) = key.split_at(digits);
    let is_canonical = (1..=MAX_DIGITS).contains(&digits) && (digits == 1 || !prefix.starts_with('0'));
    let rest = rest.strip_prefix(':').filter(|_| is_canonical)?;
    let len: usize = prefix.parse().ok()?;
    let end = rest.char_indices().map(|(at, _)| at).chain([rest.len()]).nth(len)?;
    let (group, member) = rest.split_at(end);
    Some(GroupKey { group: group.into(), member: member.into() })
}

fn join(group: &str, member: &str) -> String {
    format!("{}:{group}{member}", group.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(key: &str, expected: Option<(&str, &str)>) {
        let pair = split(key);
        let pair = pair.as_ref().map(|pair| (&*pair.group, &*pair.member));
        assert_eq!(pair, expected, "{key}");
    }

    #[test]
    fn lengths_are_unicode_scalar_values() {
        check("7:billinghost-a", Some(("billing", "host-a")));
        check("2:äöx", Some(("äö", "x")));
        check("1:𝄞x", Some(("𝄞", "x")));
        check("0:x", Some(("", "x")));
        check("3:abc", Some(("abc", "")));
        check("0:", Some(("", "")));
        check("1:::", Some((":", ":")));
    }

    #[test]
    fn other_keys_are_foreign() {
        for key in [
            "",
            ":",
            "x",
            "7",
            "7:short",
            "07:billingx",
            "00:x",
            "+1:ab",
            "-1:ab",
            " 1:ab",
            "1 :ab",
            "٣:abc",
            "99999999999999999999999:x",
            "1a:b",
            "10000000000:x",
        ] {
            check(key, None);
        }
    }

    proptest! {
        #[test]
        fn splitting_a_joined_pair_returns_the_pair(group: String, member: String) {
            check(&join(&group, &member), Some((&group, &member)));
        }

        #[test]
        fn joining_a_split_key_returns_the_key(key in "[0-9]{0,2}:?.{0,12}") {
            if let Some(pair) = split(&key) {
                prop_assert_eq!(join(&pair.group, &pair.member), key);
            }
        }
    }
}
