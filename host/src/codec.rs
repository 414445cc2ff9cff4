//! Codecs: between the bytes of a record and what a table holds.
//!
//! A codec works on batches, on one of the process's codec workers, never on a thread of the
//! caller's runtime. It has three outcomes that never mix: an item that the codec
//! answered for, an item it rejected (a [`Rejection`], which says whether the
//! codec *answered* with an error or *faulted*), and a [`HostFailure`], which is
//! nobody's fault but the host's and is charged to no record.
//!
//! Built in are `utf8`, `bytes` and `json`, and the length-prefixed group scheme;
//! components stand behind the same traits (see [`crate::wasm`]).

mod answers;
mod builtin;
mod equal;
mod length_prefixed;
mod rejection;
pub(crate) mod workers;

use std::fmt::Debug;
use std::sync::Arc;

pub use answers::PackedAnswers;
pub use builtin::{Bytes, Json, Utf8};
pub use length_prefixed::LengthPrefixed;
pub use rejection::{ComponentId, HostFailure, RejectKind, Rejection};

pub(crate) use answers::{broken_contract, checked_text};
pub(crate) use equal::json_equal;

use crate::log::Header;
use crate::packed::Packed;

/// The codecs of one topic: what a table reads through and a writer writes
/// through.
#[derive(Debug, Clone)]
pub struct Codecs {
    /// Of the keys.
    pub key: Arc<dyn KeyCodec>,
    /// Of the values.
    pub value: Arc<dyn ValueCodec>,
    /// Makes the table a grouped one.
    pub scheme: Option<Arc<dyn GroupScheme>>,
}

impl Codecs {
    /// The codecs of a flat table.
    pub fn new(key: impl KeyCodec + 'static, value: impl ValueCodec + 'static) -> Self {
        Self { key: Arc::new(key), value: Arc::new(value), scheme: None }
    }
}

/// Keys are UTF-8, values are JSON.
impl Default for Codecs {
    fn default() -> Self {
        Self::new(Utf8, Json)
    }
}

/// What a codec answers for a batch: one result for each item, in order.
pub type Answers<T> = Result<Vec<Result<T, Rejection>>, HostFailure>;

/// Between the bytes of record values and JSON text.
pub trait ValueCodec: Debug + Send + Sync {
    /// The component behind the codec; `None` if it is built in.
    fn component(&self) -> Option<&ComponentId> {
        None
    }

    /// Whether `decode` is to get the records' headers.
    fn wants_headers(&self) -> bool {
        false
    }

    /// The JSON text of each value. A table checks that it is JSON, and takes line
    /// breaks out. `headers` has a list for each value, or is empty.
    ///
    /// # Errors
    ///
    /// [`HostFailure`] if the host cannot run the codec now.
    fn decode<'a>(&self, raw: &'a Packed, headers: &[&[Header]]) -> Result<PackedAnswers<'a>, HostFailure>;

    /// The bytes of each value, given as JSON text.
    ///
    /// # Errors
    ///
    /// [`HostFailure`] if the host cannot run the codec now.
    fn encode(&self, values: &[&str]) -> Answers<Encoded>;
}

/// What a value becomes on its way into the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The record's value.
    pub raw: Vec<u8>,
    /// Headers to write with it.
    pub headers: Vec<Header>,
}

/// Between the bytes of record keys and text.
///
/// What `decode` accepts, `encode` must give back byte for byte: Kafka compacts
/// by the bytes, a table looks up by the text. Other keys are rejected as
/// [`RejectKind::NonCanonicalKey`].
pub trait KeyCodec: Debug + Send + Sync {
    /// The text of each key.
    ///
    /// # Errors
    ///
    /// [`HostFailure`] if the host cannot run the codec now.
    fn decode<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, HostFailure>;

    /// The bytes of each key.
    ///
    /// # Errors
    ///
    /// [`HostFailure`] if the host cannot run the codec now.
    fn encode(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, HostFailure>;
}

/// Between flat keys and pairs of a group and a member.
///
/// `join(split(key))` gives the key back for every key that has a pair.
pub trait GroupScheme: Debug + Send + Sync {
    /// The pair that each key stands for; `None` for a foreign key.
    ///
    /// # Errors
    ///
    /// [`HostFailure`] if the host cannot run the scheme now.
    fn split(&self, keys: &[&str]) -> Answers<Option<GroupKey>>;

    /// The key of each pair of a group and a member.
    ///
    /// # Errors
    ///
    /// [`HostFailure`] if the host cannot run the scheme now.
    fn join(&self, pairs: &[(&str, &str)]) -> Answers<Box<str>>;
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// The group's name.
    pub group: Box<str>,
    /// The member's name, unique within its group.
    pub member: Box<str>,
}
