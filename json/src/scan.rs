//! The scanner. What a byte means depends on the byte, on whether a value is expected,
//! and on what it would be in: one bit for each level.

use crate::{Checked, Error, MAX_DEPTH, Problem};

/// The levels around a place, the innermost lowest; set for an object.
type Levels = u128;

pub(crate) fn scan(bytes: &[u8]) -> Result<Checked, Error> {
    let mut scanner = Scanner { bytes, at: 0, has_line_breaks: false };
    match scanner.text() {
        Ok(()) => Ok(Checked { has_line_breaks: scanner.has_line_breaks }),
        Err(problem) => Err(Error { problem, at: scanner.at }),
    }
}
struct Scanner<'a> {
    bytes: &'a [u8],
    /// Where something is wrong, that is here.
    at: usize,
    has_line_breaks: bool,
}

impl Scanner<'_> {
    /// One value, and nothing behind it.
    fn text(&mut self) -> Result<(), Problem> {
        let (mut levels, mut depth): (Levels, u32) = (0, 0);
        loop {
            // A value.
            match self.token() {
                b'"' => self.string()?,
                open @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return Err(Problem::Depth);
                    }
                    self.at += 1;
                    let is_object = open == b'{';
                    match (is_object, self.token()) {
                        (true, b'}') | (false, b']') => self.at += 1,
                        _ => {
                            depth += 1;
                            levels = levels << 1 | Levels::from(is_object);
                            if is_object {
                                self.name()?;
                            }
                            continue;
                        }
                    }
                }
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => return Err(Problem::ExpectedValue),
            }
            // What may follow it, up to the next one.
            loop {
                let byte = self.token();
                if depth == 0 {
                    return if self.at == self.bytes.len() { Ok(()) } else { Err(Problem::Trailing) };
                }
                let is_object = levels & 1 == 1;
                match (byte, is_object) {
                    (b',', _) => {
                        self.at += 1;
                        if is_object {
                            self.name()?;
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

    /// The byte here; 0, which is in no JSON, at the end.
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// The next byte that is no white space.
    fn token(&mut self) -> u8 {
        loop {
            match self.byte() {
                b'\n' | b'\r' => self.has_line_breaks = true,
                b' ' | b'\t' => {}
                byte => return byte,
            }
            self.at += 1;
        }
    }

    /// A member's name and its colon.
    // A call costs as much as the step.
    #[inline(always)]
    fn name(&mut self) -> Result<(), Problem> {
        if self.token() != b'"' {
            return Err(Problem::ExpectedName);
        }
        self.string()?;
        if self.token() != b':' {
            return Err(Problem::ExpectedColon);
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Problem> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Problem::ExpectedValue);
        }
        self.at += word.len();
        Ok(())
    }

    /// A string, from its opening quote on.
    // A call costs as much as the step.
    #[inline(always)]
    fn string(&mut self) -> Result<(), Problem> {
        self.at += 1;
        loop {
            self.skip_plain();
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ if self.at == self.bytes.len() => return Err(Problem::EndOfString),
                _ => return Err(Problem::ControlCharacter),
            }
        }
    }

    /// Goes to the next quote, backslash or control character, eight bytes at a time.
    fn skip_plain(&mut self) {
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let special = special(u64::from_le_bytes(*chunk));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while !matches!(self.byte(), b'"' | b'\\' | 0..0x20) {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Problem> {
        self.at += 1;
        let len = match self.byte() {
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

    fn number(&mut self) -> Result<(), Problem> {
        if self.byte() == b'-' {
            self.at += 1;
        }
        match self.byte() {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Problem> {
        if !self.byte().is_ascii_digit() {
            return Err(Problem::ExpectedDigit);
        }
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;

/// The highest bit of each byte that ends or interrupts the plain part of a string. Bits
/// above the lowest may be wrong, because subtraction borrows.
fn special(word: u64) -> u64 {
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = is_zero(word ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGHS
}
