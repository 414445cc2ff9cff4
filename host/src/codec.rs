//! Codecs: between the bytes of a record and what a table holds.
//!
//! A codec works on batches, on one of the process's codec workers, never on a thread of the
//! caller's runtime. It has three outcomes that never mix: an item that the codec
//! answered for, an item it rejected (a [`Rejection`], which says whether the
//! codec *answered* with an error or *faulted*), and a [`HostFailure`], which is
//! nobody's fault but the host's and is charged to no record. A codec that faults over several
//! items at once says so ([`CodecFailure::Fault`]); its caller tries them one by one, and gives
//! its worker to others in between.
//!
//! Built in are `utf8`, `bytes` and `json`, and the length-prefixed group scheme;
//! components stand behind the same traits (see [`crate::wasm`]).

mod answers;
mod builtin;
mod call;
mod equal;
mod length_prefixed;
mod rejection;
pub(crate) mod workers;

use std::fmt::Debug;
use std::sync::Arc;

pub use answers::PackedAnswers;
pub use builtin::{Bytes, Json, Utf8};
pub use length_prefixed::LengthPrefixed;
pub use rejection::{CodecFailure, ComponentId, HostFailure, RejectKind, Rejection};

pub(crate) use answers::{broken_contract, checked_text};
pub(crate) use call::CheckedCodecs;
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
    /// What names the first of these codecs that is not built in: its component's digest, or, for a
    /// native codec, where it is in memory.
    pub(crate) fn guest(&self) -> Option<String> {
        let name = |component: Option<&ComponentId>, address: *const ()| {
            component.map_or_else(|| format!("{address:p}"), |component| component.digest.clone())
        };
        let Self { key, value, scheme } = self;
        if !value.is_built_in() {
            return Some(name(value.component(), Arc::as_ptr(value).cast()));
        }
        if !key.is_built_in() {
            return Some(name(key.component(), Arc::as_ptr(key).cast()));
        }
        let scheme = scheme.as_ref().filter(|scheme| !scheme.is_built_in())?;
        Some(name(scheme.component(), Arc::as_ptr(scheme).cast()))
    }

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
pub type Answers<T> = Result<Vec<Result<T, Rejection>>, CodecFailure>;

/// Between the bytes of record values and JSON text.
///
/// A codec may panic, or answer for too few items: that is a fault of the records it was given,
/// as it is of a component.
pub trait ValueCodec: Debug + Send + Sync {
    /// The component behind the codec; `None` if there is none.
    fn component(&self) -> Option<&ComponentId> {
        None
    }

    /// Whether the codec is one of this library's own, which are trusted to be quick.
    #[doc(hidden)]
    fn is_built_in(&self) -> bool {
        false
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
    /// [`CodecFailure`] if there are no answers at all.
    fn decode<'a>(&self, raw: &'a Packed, headers: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure>;

    /// The bytes of each value, given as JSON text.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if there are no answers at all.
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
    /// The component behind the codec; `None` if there is none.
    fn component(&self) -> Option<&ComponentId> {
        None
    }

    /// Whether the codec is one of this library's own, which are trusted to be quick.
    #[doc(hidden)]
    fn is_built_in(&self) -> bool {
        false
    }

    /// The text of each key.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if there are no answers at all.
    fn decode<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure>;

    /// The bytes of each key.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if there are no answers at all.
    fn encode(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure>;
}

/// Between flat keys and pairs of a group and a member.
///
/// `join(split(key))` gives the key back for every key that has a pair.
pub trait GroupScheme: Debug + Send + Sync {
    /// The component behind the scheme; `None` if there is none.
    fn component(&self) -> Option<&ComponentId> {
        None
    }

    /// Whether the scheme is one of this library's own, which are trusted to be quick.
    #[doc(hidden)]
    fn is_built_in(&self) -> bool {
        false
    }

    /// The pair that each key stands for; `None` for a foreign key.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if there are no answers at all.
    fn split(&self, keys: &[&str]) -> Answers<Option<GroupKey>>;

    /// The key of each pair of a group and a member.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if there are no answers at all.
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
