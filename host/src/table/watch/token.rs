//! Where a watcher resumes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::log::{Offset, Partition};
use crate::table::positions::Positions;

/// The version of the text form.
const VERSION: u8 = 1;

/// The longest text that is parsed, in bytes: a token of some 10,000 partitions.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// A place in the changes of a table: the positions in the log up to which a watcher has seen every
/// change.
///
/// Valid in every process that reads the same topic with the same codecs, and after a restart. It has a
/// text form: base64url, to be treated as opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchToken {
    /// The identity of the topic.
    pub(in crate::table) topic_id: Arc<str>,
    /// The fingerprint of the codecs.
    pub(in crate::table) fingerprint: Arc<str>,
    /// The next offset to see, by partition.
    pub(in crate::table) positions: Positions,
    /// When the token was made: milliseconds since 1970. Expirations until then were seen.
    pub(in crate::table) time: i64,
}

/// The content of the text form.
#[derive(Serialize, Deserialize)]
struct Content<'a>(
    u8,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    i64,
    Vec<(Partition, Offset)>,
);

impl fmt::Display for WatchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions = self.positions.iter().collect();
        let content =
            Content(VERSION, (&*self.topic_id).into(), (&*self.fingerprint).into(), self.time, positions);
        // OK because texts and numbers always serialize.
        f.write_str(&BASE64.encode(serde_json::to_vec(&content).expect("serializes")))
    }
}

/// A text that is not a [`WatchToken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a watch token of this version: watch from the start, or resume with a token that a watcher returned"
)]
pub struct InvalidToken;

impl FromStr for WatchToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(InvalidToken);
        }
        let bytes = BASE64.decode(text).map_err(|_| InvalidToken)?;
        let Content(version, topic_id, fingerprint, time, positions) =
            serde_json::from_slice(&bytes).map_err(|_| InvalidToken)?;
        let is_ascending = positions.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let is_valid = positions.iter().all(|&(partition, offset)| partition >= 0 && offset >= 0);
        if version != VERSION || !is_ascending || !is_valid {
            return Err(InvalidToken);
        }
        let (topic_id, fingerprint) = (topic_id.as_ref().into(), fingerprint.as_ref().into());
        Ok(Self { topic_id, fingerprint, positions: positions.into_iter().collect(), time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(positions: &[(Partition, Offset)]) -> WatchToken {
        let positions = positions.iter().copied().collect();
        WatchToken { topic_id: "id".into(), fingerprint: "f\"".into(), positions, time: 7 }
    }

    #[test]
    fn a_token_survives_its_text_form() {
        for positions in [&[][..], &[(0, 5)], &[(0, 5), (3, i64::MAX)]] {
            let token = token(positions);
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let descending = BASE64.encode(r#"[1,"id","f",7,[[1,5],[0,5]]]"#);
        let negative = BASE64.encode(r#"[1,"id","f",7,[[0,-5]]]"#);
        let version = BASE64.encode(r#"[2,"id","f",7,[]]"#);
        let long = "A".repeat(MAX_TEXT_BYTES + 4);
        for text in ["", "x", "AAAA", &descending, &negative, &version, &long] {
            assert_eq!(text.parse::<WatchToken>(), Err(InvalidToken), "{text:.40}");
        }
    }

    proptest! {
        #[test]
        fn damaged_tokens_never_panic(at: prop::sample::Index, byte in 32..127_u8) {
            let mut text = token(&[(0, 5), (1, 6)]).to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            let _ = String::from_utf8(text).unwrap().parse::<WatchToken>();
        }
    }
}
