//! Golden vectors: what a codec must answer. Codecs of the same format in different languages share the file.

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::authors::bytes::{Base64, JsonHeader};
use crate::authors::describe::{describe_answer, describe_outcome};
use crate::codec::{Encoded, GroupKey, HostFailure, RejectKind, json_equal};
use crate::log::Header;
use crate::wasm::{Answer, CodecKind, DirectCodec, Outcome, Request};

/// The errors that a codec may return, by their names in vectors.
const ERRORS: [RejectKind; 4] =
    [RejectKind::Malformed, RejectKind::Invalid, RejectKind::Unsupported, RejectKind::Other];

/// A line of a file with vectors.
///
/// A value needs `raw` and `value`, a key `raw` and `key`, a group `key`, `group` and `member`: the codec must convert
/// in both directions, or in one of them (`only`). With `error` in the place of an answer, the codec must return an
/// error of this kind. A key with `foreign` must not be split.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    kind: CodecKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<Base64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<JsonHeader>,
    // JSON `null` is a value.
    #[serde(default, deserialize_with = "deserialize_present", skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    foreign: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    only: Option<Direction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The text of the error, for people. It is not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A direction in which a codec converts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    /// From the bytes of a record; from a key to its parts.
    Decode,
    /// To the bytes of a record; from parts to their key.
    Encode,
}

/// Deserializes a member that is present, also if it is null.
fn deserialize_present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(value).map(Some)
}

/// What a codec must answer.
enum Expected {
    Answer(Answer),
    Error(String),
}

/// A vector that a codec does not satisfy.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mismatch {
    /// The line of the file, from 1.
    line: usize,
    function: &'static str,
    expected: String,
    found: String,
}

/// Parses a file with vectors. The error names the line.
pub(crate) fn parse(text: &str) -> Result<Vec<(usize, Vector)>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| {
        let number = index + 1;
        let vector: Vector = serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))?;
        if let Some(error) = vector.error.as_ref().filter(|error| !is_error(error)) {
            let known = ERRORS.map(RejectKind::name).join(", ");
            return Err(format!("line {number}: unknown error {error:?}: expected one of {known}"));
        }
        Ok((number, vector))
    };
    lines.map(parse).collect()
}

fn is_error(name: &str) -> bool {
    ERRORS.iter().any(|kind| kind.name() == name)
}

impl Vector {
    pub(crate) fn kind(&self) -> CodecKind {
        self.kind
    }

    /// Returns a vector with the input of a request.
    pub(crate) fn from_request(request: &Request) -> Self {
        let mut vector = Self {
            kind: CodecKind::Value,
            raw: None,
            headers: Vec::new(),
            value: None,
            key: None,
            group: None,
            member: None,
            foreign: false,
            only: None,
            error: None,
            message: None,
        };
        match request {
            Request::DecodeValue { raw, headers } => {
                vector.raw = Some(Base64(raw.clone()));
                vector.headers = headers.iter().map(JsonHeader::new).collect();
            }
            // OK because only JSON is encoded.
            Request::EncodeValue(text) => vector.value = RawValue::from_string(text.clone()).ok(),
            Request::DecodeKey(raw) => {
                (vector.kind, vector.raw) = (CodecKind::Key, Some(Base64(raw.clone())));
            }
            Request::EncodeKey(key) => (vector.kind, vector.key) = (CodecKind::Key, Some(key.clone())),
            Request::Split(key) => (vector.kind, vector.key) = (CodecKind::Group, Some(key.clone())),
            Request::Join(GroupKey { group, member }) => {
                vector.kind = CodecKind::Group;
                (vector.group, vector.member) = (Some(group.to_string()), Some(member.to_string()));
            }
        }
        vector
    }

    /// Returns what to ask the codec, and what it must answer.
    ///
    /// # Errors
    ///
    /// What is missing in the vector.
    fn expectations(&self) -> Result<Vec<(Request, Expected)>, String> {
        let (decode, encode) = (self.decode_request(), self.encode_request());
        if let Some(error) = &self.error {
            let request = match (decode, encode) {
                (Some(request), None) | (None, Some(request)) => request,
                _ => {
                    return Err(
                        "with `error`, a vector has the input of one function and nothing else".to_owned()
                    );
                }
            };
            return Ok(vec![(request, Expected::Error(error.clone()))]);
        }
        if self.foreign {
            let request = decode.filter(|_| encode.is_none() && self.kind == CodecKind::Group);
            let request = request.ok_or("`foreign` needs a `key` of the kind `group`, and nothing else")?;
            return Ok(vec![(request, Expected::Answer(Answer::Pair(None)))]);
        }
        let (Some(decode), Some(encode)) = (decode, encode) else {
            let needed = match self.kind {
                CodecKind::Value => "`raw` and `value`",
                CodecKind::Key => "`raw` and `key`",
                CodecKind::Group => "`key`, `group` and `member`",
            };
            return Err(format!(
                "it needs {needed}, or one side of them and `error`; --bless adds what is missing"
            ));
        };
        let (decoded, encoded) = (answer_with(&encode), self.answer_encoded(&decode));
        let both = [(Direction::Decode, decode, decoded), (Direction::Encode, encode, encoded)];
        let is_wanted = |direction| self.only.is_none_or(|only| only == direction);
        let wanted = both.into_iter().filter(|(direction, ..)| is_wanted(*direction));
        Ok(wanted.map(|(_, request, answer)| (request, Expected::Answer(answer))).collect())
    }

    /// Returns the request to decode, or to split, if the vector has its input.
    fn decode_request(&self) -> Option<Request> {
        let raw = || self.raw.as_ref().map(|raw| raw.0.clone());
        match self.kind {
            CodecKind::Value => Some(Request::DecodeValue { raw: raw()?, headers: self.own_headers() }),
            CodecKind::Key => raw().map(Request::DecodeKey),
            CodecKind::Group => self.key.clone().map(Request::Split),
        }
    }

    /// Returns the request to encode, or to join, if the vector has its input.
    fn encode_request(&self) -> Option<Request> {
        match self.kind {
            CodecKind::Value => Some(Request::EncodeValue(self.value.as_ref()?.get().to_owned())),
            CodecKind::Key => self.key.clone().map(Request::EncodeKey),
            CodecKind::Group => {
                let (group, member) = (self.group.as_deref()?, self.member.as_deref()?);
                Some(Request::Join(GroupKey { group: group.into(), member: member.into() }))
            }
        }
    }

    /// Returns the answer that has the input of `decode`.
    fn answer_encoded(&self, decode: &Request) -> Answer {
        let headers = self.own_headers();
        match decode {
            Request::Split(key) => Answer::Text(key.clone()),
            _ => {
                Answer::Encoded(Encoded { raw: self.raw.clone().map_or_else(Vec::new, |raw| raw.0), headers })
            }
        }
    }

    fn own_headers(&self) -> Vec<Header> {
        self.headers.iter().map(JsonHeader::to_header).collect()
    }

    /// Returns the request of one direction, if the vector has its input.
    pub(crate) fn request(&self, is_decode: bool) -> Option<Request> {
        if is_decode { self.decode_request() } else { self.encode_request() }
    }

    /// Removes what earlier answers said.
    fn clear_answers(&mut self) {
        (self.only, self.error, self.message, self.foreign) = (None, None, None, false);
    }

    /// Sets the answer of one direction. Fails if the vector cannot hold it.
    pub(crate) fn answer(&mut self, outcome: Outcome, is_decode: bool) -> Result<(), String> {
        self.clear_answers();
        match outcome {
            Ok(answer) => self.set_answer(answer),
            Err(reason) => {
                self.error = Some(reason.kind.name().to_owned());
                self.message = Some(reason.message);
                self.remove_answer(is_decode);
                Ok(())
            }
        }
    }

    /// Removes the answer of one direction.
    fn remove_answer(&mut self, is_decode: bool) {
        match (is_decode, self.kind) {
            (true, CodecKind::Value) => self.value = None,
            (true, CodecKind::Key) | (false, CodecKind::Group) => self.key = None,
            (true, CodecKind::Group) => (self.group, self.member) = (None, None),
            (false, _) => self.raw = None,
        }
    }

    /// Returns the requests of this vector.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Request> {
        self.decode_request().into_iter().chain(self.encode_request())
    }

    /// Replaces the answers by those of a codec.
    ///
    /// # Errors
    ///
    /// If the host fails, or if the vector has no input (the inner error).
    fn bless(&mut self, codec: &DirectCodec) -> Result<Result<(), String>, HostFailure> {
        let is_decode = match self.only {
            Some(only) => only == Direction::Decode,
            None => self.decode_request().is_some(),
        };
        let Some(request) = self.request(is_decode) else {
            return Ok(Err("it has no input".to_owned()));
        };
        let outcome = codec.call(&request)?;
        self.clear_answers();
        match outcome {
            Ok(answer) => {
                if let Err(reason) = self.set_answer(answer) {
                    return Ok(Err(reason));
                }
            }
            Err(reason) if is_error(reason.kind.name()) => {
                self.error = Some(reason.kind.name().to_owned());
                self.remove_answer(is_decode);
                return Ok(Ok(()));
            }
            Err(reason) => return Ok(Err(format!("the codec faulted: {}: {}", reason.kind, reason.message))),
        }
        // The other direction is a part of the vector only if it returns the input.
        if let (true, Some(encode)) = (is_decode, self.encode_request())
            && !matches(&Expected::Answer(self.answer_encoded(&request)), &codec.call(&encode)?, self.kind)
        {
            self.only = Some(Direction::Decode);
        }
        if !is_decode
            && let Some(decode) = self.decode_request()
            && !matches(&Expected::Answer(answer_with(&request)), &codec.call(&decode)?, self.kind)
        {
            self.only = Some(Direction::Encode);
        }
        Ok(Ok(()))
    }

    fn set_answer(&mut self, answer: Answer) -> Result<(), String> {
        match (self.kind, answer) {
            (CodecKind::Value, Answer::Text(json)) => {
                let value = RawValue::from_string(json).map_err(|error| format!("not JSON: {error}"))?;
                self.value = Some(value);
            }
            (_, Answer::Text(text)) => self.key = Some(text),
            (_, Answer::Encoded(encoded)) => {
                self.headers = encoded.headers.iter().map(JsonHeader::new).collect();
                self.raw = Some(Base64(encoded.raw));
            }
            (_, Answer::Pair(Some(GroupKey { group, member }))) => {
                (self.group, self.member) = (Some(group.into()), Some(member.into()));
            }
            (_, Answer::Pair(None)) => {
                (self.group, self.member, self.foreign) = (None, None, true);
            }
        }
        Ok(())
    }
}

/// Returns the answer that has the input of a request to encode or to join.
fn answer_with(encode: &Request) -> Answer {
    match encode {
        Request::Join(pair) => Answer::Pair(Some(pair.clone())),
        Request::EncodeValue(text) | Request::EncodeKey(text) => Answer::Text(text.clone()),
        // Never happens: these decode.
        Request::DecodeValue { .. } | Request::DecodeKey(_) | Request::Split(_) => Answer::Pair(None),
    }
}

/// Whether an outcome is the expected one. Values are compared as JSON.
fn matches(expected: &Expected, found: &Outcome, kind: CodecKind) -> bool {
    match (expected, found) {
        (Expected::Answer(Answer::Text(expected)), Ok(Answer::Text(found))) if kind == CodecKind::Value => {
            json_equal(expected, found)
        }
        (Expected::Answer(expected), Ok(found)) => expected == found,
        (Expected::Error(expected), Err(reason)) => reason.kind.name() == expected,
        _ => false,
    }
}

/// Compares the answers of a codec with the vectors of its kind. Returns the number of answers that match, and those
/// that do not.
///
/// # Errors
///
/// If the host fails, or if a vector is not complete (the inner error names its line).
pub(crate) fn compare(
    vectors: &[(usize, Vector)],
    codec: &DirectCodec,
    kind: CodecKind,
) -> Result<Result<(usize, Vec<Mismatch>), String>, HostFailure> {
    let (mut passed, mut mismatches) = (0, Vec::new());
    for (line, vector) in vectors.iter().filter(|(_, vector)| vector.kind == kind) {
        let expectations = match vector.expectations() {
            Ok(expectations) => expectations,
            Err(reason) => return Ok(Err(format!("line {line}: {reason}"))),
        };
        for (request, expected) in expectations {
            let found = codec.call(&request)?;
            if matches(&expected, &found, kind) {
                passed += 1;
                continue;
            }
            mismatches.push(Mismatch {
                line: *line,
                function: request.function(),
                expected: match expected {
                    Expected::Answer(answer) => describe_answer(&answer),
                    Expected::Error(kind) => format!("an error of the kind {kind}"),
                },
                found: describe_outcome(&found),
            });
        }
    }
    Ok(Ok((passed, mismatches)))
}

/// Replaces the answers in the vectors of this kind by those of a codec.
///
/// # Errors
///
/// As [`compare`].
pub(crate) fn bless(
    vectors: &mut [(usize, Vector)],
    codec: &DirectCodec,
    kind: CodecKind,
) -> Result<Result<(), String>, HostFailure> {
    for (line, vector) in vectors.iter_mut().filter(|(_, vector)| vector.kind == kind) {
        if let Err(reason) = vector.bless(codec)? {
            return Ok(Err(format!("line {line}: {reason}")));
        }
    }
    Ok(Ok(()))
}

/// Returns the text of a file with these vectors.
pub(crate) fn to_text(vectors: &[(usize, Vector)]) -> serde_json::Result<String> {
    let mut text = String::new();
    for (_, vector) in vectors {
        // OK because writing to a String does not fail.
        writeln!(text, "{}", serde_json::to_string(vector)?).expect("memory");
    }
    Ok(text)
}
