//! Describes requests to a codec and its answers, for people.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::codec::GroupKey;
use crate::log::Header;
use crate::wasm::{Answer, Outcome, Request};

/// How many bytes of an item are shown.
const MAX_SHOWN: usize = 256;

impl Request {
    /// Returns the name of the function that is called.
    pub(crate) fn function(&self) -> &'static str {
        match self {
            Self::DecodeValue { .. } | Self::DecodeKey(_) => "decode",
            Self::EncodeValue(_) | Self::EncodeKey(_) => "encode",
            Self::Split(_) => "split",
            Self::Join(_) => "join",
        }
    }

    /// Whether it converts in the direction of reading: decodes or splits.
    pub(crate) fn is_decode(&self) -> bool {
        matches!(self, Self::DecodeValue { .. } | Self::DecodeKey(_) | Self::Split(_))
    }

    /// Returns the headers of the record.
    pub(crate) fn headers(&self) -> &[Header] {
        match self {
            Self::DecodeValue { headers, .. } => headers,
            _ => &[],
        }
    }

    /// Returns the length of the input, in bytes.
    pub(crate) fn input_len(&self) -> usize {
        match self {
            Self::DecodeValue { raw, .. } | Self::DecodeKey(raw) => raw.len(),
            Self::EncodeValue(text) | Self::EncodeKey(text) | Self::Split(text) => text.len(),
            Self::Join(GroupKey { group, member }) => group.len() + member.len(),
        }
    }

    /// Describes the call.
    pub(crate) fn describe(&self) -> String {
        format!("{} of {}", self.function(), self.describe_input())
    }

    /// Describes the input.
    fn describe_input(&self) -> String {
        match self {
            Self::DecodeValue { raw, headers } if headers.is_empty() => describe_bytes(raw),
            Self::DecodeValue { raw, headers } => {
                format!("{} with {} headers", describe_bytes(raw), headers.len())
            }
            Self::DecodeKey(raw) => describe_bytes(raw),
            Self::EncodeValue(text) | Self::EncodeKey(text) | Self::Split(text) => describe_text(text),
            Self::Join(pair) => describe_pair(pair),
        }
    }
}

/// Describes an answer.
pub(crate) fn describe_answer(answer: &Answer) -> String {
    match answer {
        Answer::Text(text) => describe_text(text),
        Answer::Encoded(encoded) if encoded.headers.is_empty() => describe_bytes(&encoded.raw),
        Answer::Encoded(encoded) => {
            format!("{} with {} headers", describe_bytes(&encoded.raw), encoded.headers.len())
        }
        Answer::Pair(Some(pair)) => describe_pair(pair),
        Answer::Pair(None) => "a foreign key".to_owned(),
    }
}

/// Describes an answer, or why there is none.
pub(crate) fn describe_outcome(outcome: &Outcome) -> String {
    match outcome {
        Ok(answer) => describe_answer(answer),
        Err(reason) if reason.kind.is_fault() => format!("a fault ({}): {}", reason.kind, reason.message),
        Err(reason) => format!("the error {}: {}", reason.kind, reason.message),
    }
}

/// Returns bytes as text if they are printable, and else as base64.
fn describe_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok("") => "no bytes".to_owned(),
        Ok(text) if !text.contains(|c: char| c.is_control()) => format!("the bytes {}", describe_text(text)),
        _ if bytes.len() <= MAX_SHOWN => format!("the bytes {} (base64)", BASE64.encode(bytes)),
        _ => format!("{} bytes that begin with {} (base64)", bytes.len(), BASE64.encode(&bytes[..MAX_SHOWN])),
    }
}

fn describe_text(text: &str) -> String {
    match text.len() <= MAX_SHOWN {
        true => format!("{text:?}"),
        false => format!("{:?}… ({} bytes)", &text[..text.floor_char_boundary(MAX_SHOWN)], text.len()),
    }
}

fn describe_pair(pair: &GroupKey) -> String {
    format!("group {} and member {}", describe_text(&pair.group), describe_text(&pair.member))
}
