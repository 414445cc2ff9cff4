//! Tokens: what a watcher has seen, so that another one can resume from there.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::log::{Offset, Partition};
use crate::table::place::Place;
use crate::table::positions::Positions;
use crate::table::view::View;

/// The version of the text form.
const VERSION: u8 = 1;

/// The longest text that is parsed, in bytes: a token of some 10,000 partitions.
const MAX_TEXT_BYTES: usize = 512 << 10;

/// What a watcher has seen of a table, so that another one can resume from there.
///
/// Valid in every process that reads the same topic with the same codecs, `on_reject` and `ttl`, and after a
/// restart. It has a text form: base64url, to be treated as opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchToken {
    pub(in crate::table) source: Source,
    /// The place that the watcher has reached.
    pub(in crate::table) place: Place,
    /// All records that were written before this time (milliseconds since 1970) are below the positions of
    /// `place`. The age of the token counts from it. `None` if the table was never caught up.
    pub(in crate::table) as_of: Option<i64>,
    /// Where the watcher was in the history of the table that returned the token.
    pub(in crate::table) cursor: Cursor,
}

/// What is decoded, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::table) struct Source {
    /// The identity of the topic; empty if the log has none.
    pub(in crate::table) topic_id: Arc<str>,
    /// The fingerprint of the codecs, and the settings of the table that decide what it holds.
    pub(in crate::table) fingerprint: Arc<str>,
}

impl Source {
    /// Returns the source of a view, in a table with these settings.
    pub(in crate::table) fn new(view: &View, settings: &str) -> Self {
        let fingerprint = format!("{} {settings}", view.fingerprint).into();
        Self { topic_id: view.topic.id.as_str().into(), fingerprint }
    }
}

/// A point in the history of one table in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::table) struct Cursor {
    /// The id of the history.
    pub(in crate::table) history: Uuid,
    /// The number of the first batch that was not seen completely.
    pub(in crate::table) batch: u64,
    /// How many effects of that batch were seen.
    pub(in crate::table) effects: usize,
}

/// The content of the text form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content<'a> {
    version: u8,
    #[serde(borrow, rename = "topic")]
    topic_id: Cow<'a, str>,
    #[serde(borrow, rename = "codecs")]
    fingerprint: Cow<'a, str>,
    positions: Vec<(Partition, Offset)>,
    starts: Vec<(Partition, Offset)>,
    expired_until: i64,
    as_of: Option<i64>,
    cursor: Cursor,
}

impl fmt::Display for WatchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = Content {
            version: VERSION,
            topic_id: (&*self.source.topic_id).into(),
            fingerprint: (&*self.source.fingerprint).into(),
            positions: self.place.positions.iter().collect(),
            starts: self.place.starts.iter().collect(),
            expired_until: self.place.expired_until,
            as_of: self.as_of,
            cursor: self.cursor,
        };
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
        let content: Content<'_> = serde_json::from_slice(&bytes).map_err(|_| InvalidToken)?;
        if content.version != VERSION {
            return Err(InvalidToken);
        }
        let source = Source {
            topic_id: content.topic_id.as_ref().into(),
            fingerprint: content.fingerprint.as_ref().into(),
        };
        let starts = Arc::new(offsets(content.starts)?);
        let (positions, expired_until) = (offsets(content.positions)?, content.expired_until);
        let place = Place { positions, starts, expired_until };
        Ok(Self { source, place, as_of: content.as_of, cursor: content.cursor })
    }
}

/// Converts a list of offsets by partition, and checks it: partitions ascend, and nothing is negative.
fn offsets(offsets: Vec<(Partition, Offset)>) -> Result<Positions, InvalidToken> {
    let is_ascending = offsets.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let is_valid = offsets.iter().all(|&(partition, offset)| partition >= 0 && offset >= 0);
    if is_ascending && is_valid { Ok(offsets.into_iter().collect()) } else { Err(InvalidToken) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(positions: &[(Partition, Offset)]) -> WatchToken {
        let positions: Positions = positions.iter().copied().collect();
        let source = Source { topic_id: "id".into(), fingerprint: "f\"".into() };
        let cursor = Cursor { history: Uuid::new_v4(), batch: 3, effects: 1 };
        let place = Place { starts: Arc::new(positions.clone()), positions, expired_until: 7 };
        WatchToken { source, place, as_of: Some(8), cursor }
    }

    /// The text of a token with other content.
    fn with(field: &str, value: serde_json::Value) -> String {
        let bytes = BASE64.decode(token(&[]).to_string()).unwrap();
        let mut content: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        content[field] = value;
        BASE64.encode(content.to_string())
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
        let same = with("version", 1.into());
        assert!(same.parse::<WatchToken>().is_ok());
        let descending = with("positions", serde_json::json!([[1, 5], [0, 5]]));
        let negative = with("starts", serde_json::json!([[0, -5]]));
        let version = with("version", 2.into());
        let unknown = with("more", 1.into());
        let long = "A".repeat(MAX_TEXT_BYTES + 4);
        for text in ["", "x", "AAAA", &descending, &negative, &version, &unknown, &long] {
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
