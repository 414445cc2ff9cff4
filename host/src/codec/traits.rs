//! The interfaces of codecs.

use std::fmt::Debug;

use crate::codec::{CodecFailure, ComponentId, PackedAnswers, RejectReason};
use crate::log::Header;
use crate::packed::Packed;

/// Methods that all kinds of codecs share.
pub trait Codec: Debug + Send + Sync {
    /// Returns the component that implements the codec, or `None` for a native codec.
    fn component(&self) -> Option<&ComponentId> {
        None
    }

    /// Returns a text that identifies the behaviour of the codec, including its configuration. Two codecs
    /// with the same identity must decode and encode alike, in every process and version. The fingerprint of
    /// a table contains it. The default is the name of the type.
    fn identity(&self) -> String {
        std::any::type_name::<Self>().to_owned()
    }

    /// Whether the codec is built into this library. Built-in codecs are trusted to be quick.
    #[doc(hidden)]
    fn is_built_in(&self) -> bool {
        false
    }
}

/// The answers of a codec for a batch: one result for each item, in order.
pub type Answers<T> = Result<Vec<Result<T, RejectReason>>, CodecFailure>;

/// Converts between the bytes of record values and JSON text.
///
/// A codec that panics, or that returns too few or too many answers, has faulted, like a component that
/// traps.
pub trait ValueCodec: Codec {
    /// Whether [`ValueCodec::decode_values`] needs the headers of records.
    fn wants_headers(&self) -> bool {
        false
    }

    /// Decodes values to JSON text. The caller checks that the text is JSON, and removes line breaks between
    /// its tokens. `headers` has a list for each value, or is empty.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if the whole call failed, so that there is no answer for any item.
    fn decode_values<'a>(
        &self,
        raw: &'a Packed,
        headers: &[&[Header]],
    ) -> Result<PackedAnswers<'a>, CodecFailure>;

    /// Encodes values from JSON text.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if the whole call failed, so that there is no answer for any item.
    fn encode_values(&self, values: &[&str]) -> Answers<Encoded>;
}

/// An encoded value, ready to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The value of the record.
    pub raw: Vec<u8>,
    /// Headers to write with the record.
    pub headers: Vec<Header>,
}

/// Converts between the bytes of record keys and text.
///
/// Encoding a decoded key must return the same bytes, because Kafka compacts by the bytes, and a table looks
/// keys up by the text. If the codec is a component, a record whose key does not satisfy this is rejected as
/// [`RejectKind::NonCanonicalKey`](crate::codec::RejectKind::NonCanonicalKey). A native codec is not checked,
/// and must reject such keys itself.
pub trait KeyCodec: Codec {
    /// Decodes keys to text.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if the whole call failed, so that there is no answer for any item.
    fn decode_keys<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure>;

    /// Encodes keys from text.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if the whole call failed, so that there is no answer for any item.
    fn encode_keys(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure>;
}

/// Converts between keys and pairs of group and member.
///
/// Joining the pair of a key must return the key.
pub trait GroupScheme: Codec {
    /// Splits keys into group and member; `None` for a foreign key.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if the whole call failed, so that there is no answer for any item.
    fn split_keys(&self, keys: &[&str]) -> Answers<Option<GroupKey>>;

    /// Joins pairs of group and member to keys.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if the whole call failed, so that there is no answer for any item.
    fn join_keys(&self, pairs: &[(&str, &str)]) -> Answers<Box<str>>;
}

/// The group and the member that a key consists of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The name of the group.
    pub group: Box<str>,
    /// The name of the member, unique within its group.
    pub member: Box<str>,
}
