//! Compares JSON texts by content. The order of object members is ignored, and numbers are compared by value,
//! to the last digit.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Whether two valid JSON texts are equal in structure and values.
///
/// Numbers are compared as decimals, without rounding them to a machine format: `1`, `1.0` and `10e-1` are
/// equal, 9007199254740993 and 9007199254740992 are not.
pub(crate) fn json_equal(left: &str, right: &str) -> bool {
    let (left, right) = (left.trim(), right.trim());
    // Most codecs return the same text.
    if left == right {
        return true;
    }
    match (left.as_bytes().first(), right.as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => compare::<BTreeMap<Text, &RawValue>>(left, right, |left, right| {
            left.len() == right.len()
                && left.iter().zip(&right).all(|(l, r)| l.0 == r.0 && json_equal(l.1.get(), r.1.get()))
        }),
        (Some(b'['), Some(b'[')) => compare::<Vec<&RawValue>>(left, right, |left, right| {
            left.len() == right.len() && left.iter().zip(&right).all(|(l, r)| json_equal(l.get(), r.get()))
        }),
        (Some(b'"'), Some(b'"')) => compare::<Text>(left, right, |left, right| left == right),
        (Some(b'-' | b'0'..=b'9'), Some(b'-' | b'0'..=b'9')) => {
            // A number other than zero whose exponent is out of range equals only the same text, which was
            // compared before.
            Decimal::parse(left).is_some_and(|left| Decimal::parse(right) == Some(left))
        }
        _ => left == right,
    }
}

/// The content of a JSON string. Not a `String`, because the escape of half a surrogate pair is valid JSON.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Text(Vec<u8>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(TextVisitor)
    }
}

/// Parses two texts, and compares the results. False if one of them cannot be parsed.
fn compare<'a, T: Deserialize<'a>>(
    left: &'a str,
    right: &'a str,
    is_equal: impl FnOnce(T, T) -> bool,
) -> bool {
    match (serde_json::from_str(left), serde_json::from_str(right)) {
        (Ok(left), Ok(right)) => is_equal(left, right),
        _ => false,
    }
}

/// A JSON number in canonical form, so that equal values have equal fields. `digits` has no zero at either
/// end, and its last digit stands for `10^exponent`.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i128,
}

impl Decimal {
    /// Parses a JSON number. Returns `None` if it is not zero, and the exponent does not fit into an `i64`.
    fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_end_matches('0');
        let dropped = digits.len() - significant.len();
        let digits = significant.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { is_negative: false, digits, exponent: 0 });
        }
        let exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
        let shift = i128::try_from(dropped).ok()? - i128::try_from(fraction.len()).ok()?;
        Some(Self { is_negative, digits, exponent: i128::from(exponent) + shift })
    }
}

#[cfg(test)]
mod tests {
    use super::json_equal;
    use proptest::prelude::*;

    fn check(left: &str, right: &str, is_equal: bool) {
        assert_eq!(json_equal(left, right), is_equal, "{left} and {right}");
        assert_eq!(json_equal(right, left), is_equal, "{right} and {left}");
    }

    #[test]
    fn numbers_are_compared_by_value() {
        check("1", "1.0", true);
        check("100", "1e2", true);
        check("10e-1", "1", true);
        check("-0", "0", true);
        check("0.10", "1E-1", true);
        check("-1", "1", false);
        check("9007199254740993", "9007199254740992", false);
        check("123456789012345678901234567890", "123456789012345678901234567891", false);
        check("1e400", "1e401", false);
        check("0.0", "0e5", true);
        check("1e99999999999999999999", "2e99999999999999999999", false);
    }

    #[test]
    fn the_order_of_object_members_is_ignored() {
        check(r#"{"a":1,"b":[1,2]}"#, r#" { "b" : [1, 2.0], "a" : 1e0 } "#, true);
        check("[1,2]", "[2,1]", false);
        check(r#"{"a":1}"#, r#"{"a":1,"b":null}"#, false);
        check(r#""\u0041""#, r#""A""#, true);
        check(r#"{"\ud800":["\udc00"]}"#, r#"{ "\uD800" : ["\uDC00"]}"#, true);
        check(r#""\ud800""#, r#""\ud801""#, false);
        check("null", "0", false);
        check("true", "\"true\"", false);
        check("true", " true ", true);
    }

    proptest! {
        #[test]
        fn a_number_equals_itself_with_a_shifted_exponent(number: i64, shift in 0_i32..20) {
            let left = number.to_string();
            let right = format!("{number}{}e-{shift}", "0".repeat(shift as usize));
            prop_assert!(json_equal(&left, &right));
            let other = number.wrapping_add(1).to_string();
            prop_assert!(!json_equal(&other, &right));
        }
    }
}
