//! The scanner. Its state is the position, whether a value is expected next, and one bit for each level of
//! nesting.

use crate::{Checked, Error, MAX_DEPTH, Problem};

/// The arrays and objects around a position: one bit for each, the innermost in the lowest bit. The bit of
/// an object is set.
type Levels = u128;

/// Checks that bytes are one JSON value.
pub(crate) fn scan(bytes: &[u8]) -> Result<Checked, Error> {
    let mut scanner = Scanner { bytes, at: 0, has_line_breaks: false };
    match scanner.scan_text() {
        Ok(()) => Ok(Checked { has_line_breaks: scanner.has_line_breaks }),
        Err(problem) => Err(Error { problem, at: scanner.at }),
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    /// The position of the next byte. After an error, the position of the problem.
    at: usize,
    has_line_breaks: bool,
}

impl Scanner<'_> {
    /// Scans one value, and checks that nothing follows it.
    fn scan_text(&mut self) -> Result<(), Problem> {
        let (mut levels, mut depth): (Levels, u32) = (0, 0);
        loop {
            // A value.
            match self.skip_to_token() {
                b'"' => self.scan_string()?,
                open @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return Err(Problem::Depth);
                    }
                    self.at += 1;
                    let is_object = open == b'{';
                    match (is_object, self.skip_to_token()) {
                        (true, b'}') | (false, b']') => self.at += 1,
                        _ => {
                            depth += 1;
                            levels = levels << 1 | Levels::from(is_object);
                            if is_object {
                                self.scan_name()?;
                            }
                            continue;
                        }
                    }
                }
                b'-' | b'0'..=b'9' => self.scan_number()?,
                b't' => self.scan_word(b"true")?,
                b'f' => self.scan_word(b"false")?,
                b'n' => self.scan_word(b"null")?,
                _ => return Err(Problem::ExpectedValue),
            }
            // Commas and ends of arrays and objects, up to the next value.
            loop {
                let byte = self.skip_to_token();
                if depth == 0 {
                    return if self.at == self.bytes.len() { Ok(()) } else { Err(Problem::Trailing) };
                }
                let is_object = levels & 1 == 1;
                match (byte, is_object) {
                    (b',', _) => {
                        self.at += 1;
                        if is_object {
                            self.scan_name()?;
                        }
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        self.at += 1;
                        depth -= 1;
                        levels >>= 1;
                    }
                    _ => return Err(Problem::ExpectedCommaOrEnd),
                }
            }
        }
    }

    /// Returns the next byte without consuming it. At the end, returns 0, which is not valid in JSON.
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Skips white space, and returns the next byte without consuming it.
    fn skip_to_token(&mut self) -> u8 {
        loop {
            match self.peek() {
                b'\n' | b'\r' => self.has_line_breaks = true,
                b' ' | b'\t' => {}
                byte => return byte,
            }
            self.at += 1;
        }
    }

    /// Scans the name of an object member and its colon.
    // Inlined, because a call costs as much as the work of this function.
    #[inline(always)]
    fn scan_name(&mut self) -> Result<(), Problem> {
        if self.skip_to_token() != b'"' {
            return Err(Problem::ExpectedName);
        }
        self.scan_string()?;
        if self.skip_to_token() != b':' {
            return Err(Problem::ExpectedColon);
        }
        self.at += 1;
        Ok(())
    }

    /// Scans `true`, `false` or `null`.
    fn scan_word(&mut self, word: &[u8]) -> Result<(), Problem> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Problem::ExpectedValue);
        }
        self.at += word.len();
        Ok(())
    }

    /// Scans a string, from its opening quote.
    // Inlined, because a call costs as much as the work of this function.
    #[inline(always)]
    fn scan_string(&mut self) -> Result<(), Problem> {
        self.at += 1;
        loop {
            self.skip_plain();
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.scan_escape()?,
                _ if self.at == self.bytes.len() => return Err(Problem::EndOfString),
                _ => return Err(Problem::ControlCharacter),
            }
        }
    }

    /// Skips to the next quote, backslash or control character, eight bytes at a time.
    fn skip_plain(&mut self) {
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let special = mark_special(u64::from_le_bytes(*chunk));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while !matches!(self.peek(), b'"' | b'\\' | 0..0x20) {
            self.at += 1;
        }
    }

    /// Scans an escape, from its backslash.
    fn scan_escape(&mut self) -> Result<(), Problem> {
        self.at += 1;
        let len = match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 1,
            b'u' => {
                let digits = self.bytes.get(self.at + 1..self.at + 5).unwrap_or_default();
                if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Problem::Escape);
                }
                5
            }
            _ => return Err(Problem::Escape),
        };
        self.at += len;
        Ok(())
    }

    fn scan_number(&mut self) -> Result<(), Problem> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            _ => self.scan_digits()?,
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.scan_digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.scan_digits()?;
        }
        Ok(())
    }

    /// Scans one digit or more.
    fn scan_digits(&mut self) -> Result<(), Problem> {
        if !self.peek().is_ascii_digit() {
            return Err(Problem::ExpectedDigit);
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }
}

/// The lowest bit of each byte.
const LOW_BITS: u64 = u64::MAX / 255;

/// The highest bit of each byte.
const HIGH_BITS: u64 = LOW_BITS << 7;

/// Sets the highest bit of each byte that is a quote, a backslash or a control character, and clears all
/// other bits. Only the lowest set bit is reliable, because subtraction borrows from higher bytes.
fn mark_special(word: u64) -> u64 {
    let mark_zeros = |word: u64| word.wrapping_sub(LOW_BITS) & !word;
    let quotes = mark_zeros(word ^ (LOW_BITS * u64::from(b'"')));
    let backslashes = mark_zeros(word ^ (LOW_BITS * u64::from(b'\\')));
    let controls = word.wrapping_sub(LOW_BITS * 0x20) & !word;
    (quotes | backslashes | controls) & HIGH_BITS
}
