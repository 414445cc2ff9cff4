//! Generates requests: edge cases, random input, and damaged samples. The same samples give the same requests.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::codec::GroupKey;
use crate::log::Header;
use crate::wasm::{CodecKind, Request};

/// The longest random input, in bytes or characters.
const MAX_LEN: usize = 200;

/// The longest sample that is damaged, in bytes.
const MAX_DAMAGED: usize = 64 << 10;

/// Texts that are often handled wrongly.
const TEXTS: [&str; 24] = [
    "",
    "a",
    " ",
    "/",
    "a/b",
    "A/B",
    "a/b/c",
    "a//b",
    "a/b/",
    "/a",
    "//",
    ":",
    "a:b",
    "A:B",
    "\0",
    "ä",
    "a\u{308}/ä",
    "ß/ẞ",
    "𝄞",
    "\"\\",
    "007/07",
    "None",
    "null",
    "é\n",
];

/// JSON values that are often handled wrongly.
const JSON: [&str; 20] = [
    "null",
    "true",
    "0",
    "-0",
    "-0.0",
    "1e400",
    "18446744073709551616",
    "123456789012345678901234567890123456789012345678901234567890",
    "0.1",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"ä\"",
    "[]",
    "[null]",
    "[\"a\",80,1,true,false,0,[]]",
    "{}",
    "{\"\":{}}",
    "{\"a\":1,\"a\":2}",
    "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
];

/// Bytes that are often special: limits of types, of UTF-8 and of text.
const BYTES: [u8; 16] =
    [0, 1, 2, 0x0a, 0x20, 0x22, 0x2f, 0x30, 0x41, 0x61, 0x7f, 0x80, 0xc3, 0xed, 0xfe, 0xff];

/// Generates requests for a codec of one kind.
pub(super) struct Generator {
    kind: CodecKind,
    wants_headers: bool,
    /// What is damaged: the author's samples for decode or split.
    samples: Vec<Request>,
    random: StdRng,
}

impl Generator {
    pub(super) fn new(kind: CodecKind, wants_headers: bool, samples: &[Request]) -> Self {
        let is_damaged = |request: &&Request| request.is_decode() && request.input_len() <= MAX_DAMAGED;
        let samples = samples.iter().filter(is_damaged).cloned().collect();
        Self { kind, wants_headers, samples, random: StdRng::seed_from_u64(0) }
    }

    /// Returns input that is often handled wrongly, for both directions.
    pub(super) fn edge_cases(&mut self) -> Vec<Request> {
        let mut bytes: Vec<Vec<u8>> =
            vec![Vec::new(), b"{}".to_vec(), "ä".into(), vec![0; 16], vec![0xff; 16]];
        bytes.extend((0..=u8::MAX).map(|byte| vec![byte]));
        bytes.extend(BYTES.iter().flat_map(|&first| BYTES.map(|second| vec![first, second])));
        bytes.extend(
            [3, 4, 8, 255, 256, 257, 65_536].into_iter().flat_map(|len| [vec![0; len], vec![0xff; len]]),
        );
        let texts = TEXTS.map(str::to_owned).into_iter();
        match self.kind {
            CodecKind::Value => {
                let decode: Vec<Request> = bytes.into_iter().map(|raw| self.decode_value(raw)).collect();
                let encode = JSON.iter().map(|json| Request::EncodeValue((*json).to_owned()));
                decode.into_iter().chain(encode).collect()
            }
            CodecKind::Key => {
                let decode = bytes.into_iter().map(Request::DecodeKey);
                decode.chain(texts.map(Request::EncodeKey)).collect()
            }
            CodecKind::Group => {
                let pairs = TEXTS.iter().flat_map(|group| TEXTS.map(|member| (group, member)));
                let join = pairs.map(|(group, member)| {
                    Request::Join(GroupKey { group: (*group).into(), member: member.into() })
                });
                texts.map(Request::Split).chain(join).collect()
            }
        }
    }

    /// Returns input for the function that decodes or splits: half of it is random, the other half are damaged samples.
    pub(super) fn random(&mut self, count: usize) -> Vec<Request> {
        let mut requests = Vec::new();
        for index in 0..count {
            let sample = (index % 2 == 0 && !self.samples.is_empty())
                .then(|| self.random.random_range(0..self.samples.len()));
            let request = match (sample, self.kind) {
                (Some(index), _) => self.damage(self.samples[index].clone()),
                (None, CodecKind::Value) => {
                    let raw = self.bytes();
                    self.decode_value(raw)
                }
                (None, CodecKind::Key) => Request::DecodeKey(self.bytes()),
                (None, CodecKind::Group) => {
                    let text = TEXTS[self.random.random_range(0..TEXTS.len())];
                    let is_text = self.random.random_bool(0.5);
                    Request::Split(if is_text { self.text() } else { self.damage_text(text) })
                }
            };
            requests.push(request);
        }
        requests
    }

    /// Returns damaged forms of these requests.
    pub(super) fn damaged(&mut self, requests: &[Request], count: usize) -> Vec<Request> {
        let short: Vec<&Request> =
            requests.iter().filter(|request| request.input_len() <= MAX_DAMAGED).collect();
        if short.is_empty() {
            return Vec::new();
        }
        let mut damaged = Vec::new();
        for _ in 0..count {
            let picked = short[self.random.random_range(0..short.len())].clone();
            damaged.push(self.damage(picked));
        }
        damaged
    }

    /// Changes the order of a list.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        list.shuffle(&mut self.random);
    }

    fn damage(&mut self, request: Request) -> Request {
        match request {
            Request::DecodeValue { raw, headers } if !headers.is_empty() && self.random.random_bool(0.3) => {
                Request::DecodeValue { raw, headers: self.damage_headers(headers) }
            }
            Request::DecodeValue { raw, headers } => {
                Request::DecodeValue { raw: self.damage_bytes(raw), headers }
            }
            Request::DecodeKey(raw) => Request::DecodeKey(self.damage_bytes(raw)),
            Request::EncodeValue(text) => Request::EncodeValue(self.damage_json(text)),
            Request::EncodeKey(text) => Request::EncodeKey(self.damage_text(&text)),
            Request::Split(text) => Request::Split(self.damage_text(&text)),
            Request::Join(GroupKey { group, member }) => Request::Join(match self.random.random_bool(0.5) {
                true => GroupKey { group: self.damage_text(&group).into(), member },
                false => GroupKey { member: self.damage_text(&member).into(), group },
            }),
        }
    }

    /// Changes, removes, adds or repeats bytes.
    fn damage_bytes(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let at = self.random.random_range(0..=bytes.len());
        let special = BYTES[self.random.random_range(0..BYTES.len())];
        match self.random.random_range(0..8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, self.random.random()),
            2 => bytes.insert(at, special),
            3 => bytes.push(special),
            4 => {
                let repeated = bytes[at..].to_vec();
                bytes.extend(repeated);
            }
            5 if at < bytes.len() => drop(bytes.remove(at)),
            // Another case of a letter.
            6 if at < bytes.len() => bytes[at] ^= 0x20,
            _ if at < bytes.len() => bytes[at] = self.random.random(),
            _ => bytes.push(self.random.random()),
        }
        bytes
    }

    /// Removes, repeats or changes headers.
    fn damage_headers(&mut self, mut headers: Vec<Header>) -> Vec<Header> {
        let at = self.random.random_range(0..headers.len());
        match self.random.random_range(0..5) {
            0 => drop(headers.remove(at)),
            1 => headers.push(headers[at].clone()),
            2 => headers[at].value = None,
            3 => headers[at].value = Some(self.bytes()),
            _ => headers[at].name = self.text(),
        }
        headers
    }

    /// Changes, removes or adds a character. Some of the changes are small, because a codec may take both texts for the
    /// same: another case, a leading zero, a repeated separator, a blank.
    fn damage_text(&mut self, text: &str) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        if characters.is_empty() {
            return self.text();
        }
        let at = self.random.random_range(0..characters.len());
        let here = characters[at];
        match self.random.random_range(0..8) {
            0 => characters.truncate(at),
            1 => drop(characters.remove(at)),
            2 => characters.insert(at, here),
            3 => characters.insert(at, '0'),
            4 => characters.push([' ', '\0', '/', '\n'][self.random.random_range(0..4)]),
            5 | 6 if here.is_alphabetic() => {
                let other = match here.is_uppercase() {
                    true => here.to_lowercase().next(),
                    false => here.to_uppercase().next(),
                };
                characters[at] = other.unwrap_or(here);
            }
            _ => characters[at] = self.character(),
        }
        characters.into_iter().collect()
    }

    /// Replaces a string, a number or a word of a JSON text, or leaves out what is between two commas. The result is JSON
    /// again, or else the text itself.
    fn damage_json(&mut self, text: String) -> String {
        let scalars = find_scalars(&text);
        if scalars.is_empty() {
            return JSON[self.random.random_range(0..JSON.len())].to_owned();
        }
        let Range { start, end } = scalars[self.random.random_range(0..scalars.len())].clone();
        let other = match self.random.random_range(0..4) {
            0 => {
                // With the comma before it, if it is an item or a member.
                let from = text[..start].rfind([',', '[', '{']).map_or(start, |at| at.max(1));
                let shorter = format!("{}{}", &text[..from], &text[end..]);
                return if ktables_json::check(&shorter).is_ok() { shorter } else { text };
            }
            1 => &text[scalars[self.random.random_range(0..scalars.len())].clone()],
            _ => JSON[self.random.random_range(0..JSON.len())],
        };
        let changed = format!("{}{other}{}", &text[..start], &text[end..]);
        if ktables_json::check(&changed).is_ok() { changed } else { text }
    }

    fn decode_value(&mut self, raw: Vec<u8>) -> Request {
        let headers = match self.wants_headers && self.random.random_bool(0.5) {
            true => {
                let value = self.random.random_bool(0.7).then(|| self.bytes());
                vec![Header { name: self.text(), value }]
            }
            false => Vec::new(),
        };
        Request::DecodeValue { raw, headers }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.random.random_range(0..=MAX_LEN);
        (0..len).map(|_| self.random.random()).collect()
    }

    fn text(&mut self) -> String {
        let len = self.random.random_range(0..=MAX_LEN / 10);
        (0..len).map(|_| self.character()).collect()
    }

    /// Returns a character: usually one that occurs in keys.
    fn character(&mut self) -> char {
        const USUAL: &[u8] = b"abcABC019/:.-_|#=; ";
        match self.random.random_bool(0.9) {
            true => char::from(USUAL[self.random.random_range(0..USUAL.len())]),
            false => self.random.random(),
        }
    }
}

/// Returns where the strings, numbers and words of a JSON text are, names of members included.
fn find_scalars(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut scalars, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
                scalars.push(start..at);
            }
            byte if byte == b'-' || byte.is_ascii_alphanumeric() => {
                while at < bytes.len()
                    && !matches!(bytes[at], b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n')
                {
                    at += 1;
                }
                scalars.push(start..at);
            }
            _ => at += 1,
        }
    }
    scalars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_of_json_are_found() {
        let text = r#"{"a\"":[1,-2e5, true],"ä":""}"#;
        let found: Vec<&str> = find_scalars(text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(found, [r#""a\"""#, "1", "-2e5", "true", "\"ä\"", "\"\""]);
    }

    #[test]
    fn damaged_json_is_json() {
        let mut generator = Generator::new(CodecKind::Value, false, &[]);
        let text = r#"{"host":"a","tags":["eu",{"x":null}],"n":18446744073709551615}"#;
        let damaged: Vec<String> = (0..2000).map(|_| generator.damage_json(text.to_owned())).collect();
        assert!(damaged.iter().all(|text| ktables_json::check(text).is_ok()));
        assert!(damaged.iter().any(|damaged| damaged.contains("1e400")));
        assert!(damaged.iter().any(|damaged| !damaged.contains("host")));
    }
}
