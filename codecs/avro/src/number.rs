//! The JSON form of numbers.

use num_bigint::BigInt;

use crate::json::push;

/// How many digits a decimal number has at most. They take time that grows with the square.
pub(crate) const MAX_DIGITS: usize = 2500;

/// Appends the shortest text that reads as the same number. JSON has no NaN and no infinity: they are strings.
pub(crate) fn write_double(number: f64, out: &mut String) {
    match special(number) {
        Some(text) => push(out, format_args!("\"{text}\"")),
        None => out.push_str(zmij::Buffer::new().format_finite(number)),
    }
}

/// As [`write_double`], for a number of 32 bits.
pub(crate) fn write_float(number: f32, out: &mut String) {
    match special(f64::from(number)) {
        Some(text) => push(out, format_args!("\"{text}\"")),
        None => out.push_str(zmij::Buffer::new().format_finite(number)),
    }
}

fn special(number: f64) -> Option<&'static str> {
    match number {
        _ if number.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// Reads what [`write_double`] writes.
pub(crate) fn read_special(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Appends a decimal number with all digits behind its point.
pub(crate) fn write_decimal(unscaled: &BigInt, scale: i64, out: &mut String) {
    let mut digits = unscaled.magnitude().to_string();
    let scale = usize::try_from(scale).unwrap_or_else(|_| {
        let zeros = if digits == "0" { 0 } else { scale.unsigned_abs() as usize };
        digits.push_str(&"0".repeat(zeros));
        0
    });
    if unscaled.sign() == num_bigint::Sign::Minus {
        out.push('-');
    }
    if scale == 0 {
        out.push_str(&digits);
        return;
    }
    let whole = digits.len().saturating_sub(scale);
    out.push_str(if whole == 0 { "0" } else { &digits[..whole] });
    out.push('.');
    for _ in digits.len()..scale {
        out.push('0');
    }
    out.push_str(&digits[whole..]);
}

/// Reads a decimal number: its digits without a point, and how many are behind the point. Zeros at the end do not count.
pub(crate) fn read_decimal(text: &str) -> Option<(BigInt, usize)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || exponent.unsigned_abs() > 1024 {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    if digits.len() > MAX_DIGITS {
        return None;
    }
    let scale = fraction.len() as i64 - i64::from(exponent);
    let kept = digits.trim_end_matches('0');
    let scale = scale - (digits.len() - kept.len()) as i64;
    let zeros = usize::try_from(-scale).unwrap_or(0);
    let kept = if kept.is_empty() { "0" } else { kept };
    let unscaled = format!("{sign}{kept}{}", "0".repeat(if kept == "0" { 0 } else { zeros })).parse().ok()?;
    Some((unscaled, if kept == "0" { 0 } else { usize::try_from(scale).unwrap_or(0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let text = |unscaled: i64, scale| {
            let mut out = String::new();
            write_decimal(&BigInt::from(unscaled), scale, &mut out);
            out
        };
        assert_eq!(text(12345, 2), "123.45");
        assert_eq!(text(-5, 3), "-0.005");
        assert_eq!(text(0, 2), "0.00");
        assert_eq!(text(7, 0), "7");
        let number = |text: &str| read_decimal(text).map(|(unscaled, scale)| (unscaled.to_string(), scale));
        assert_eq!(number("123.450"), Some(("12345".to_owned(), 2)));
        assert_eq!(number("-0.005"), Some(("-5".to_owned(), 3)));
        assert_eq!(number("1.5e3"), Some(("1500".to_owned(), 0)));
        assert_eq!(number("15e-1"), Some(("15".to_owned(), 1)));
        assert_eq!(number("0.00"), Some(("0".to_owned(), 0)));
        assert_eq!(number("100"), Some(("100".to_owned(), 0)));
        for text in ["", ".5", "1.2.3", "x", "1e99999", "--1", "1e"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn floating_point_numbers_are_the_shortest_ones() {
        let mut out = String::new();
        write_float(0.1, &mut out);
        out.push(' ');
        write_double(1e300, &mut out);
        out.push(' ');
        write_double(f64::NEG_INFINITY, &mut out);
        assert_eq!(out, "0.1 1e+300 \"-Infinity\"");
        assert!(read_special("NaN").is_some_and(f64::is_nan));
    }
}
