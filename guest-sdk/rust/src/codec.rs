//! The traits that codecs implement. They are ordinary Rust, and independent of WebAssembly.

use std::borrow::Cow;

use crate::{CodecError, Encoded, Header, Info, Role};

/// Converts between the bytes of record values and JSON text.
pub trait ValueCodec {
    /// Decodes the bytes of a value to JSON text.
    ///
    /// The result may borrow from `raw`, so a codec that only checks text copies nothing. `raw` may be empty.
    /// Records with a null value (tombstones) do not reach the codec. `headers` is empty unless
    /// [`Plugin::describe`] requests headers.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] rejects the record, and users see its text.
    fn decode<'a>(&self, raw: &'a [u8], headers: &[Header]) -> Result<Cow<'a, str>, CodecError>;

    /// Encodes JSON text to the bytes of a value. By default, the host decodes the result again, and writes
    /// it only if it gives the same JSON.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] refuses the write. The default implementation is for codecs that only decode: it
    /// always returns [`CodecError::Unsupported`].
    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        let _ = value;
        Err(CodecError::Unsupported("this codec only decodes".to_owned()))
    }
}

/// Converts between the bytes of record keys and text.
///
/// `encode_key(decode_key(raw))` must return `raw`, because Kafka compacts by the bytes, and a table looks
/// keys up by the text. The host rejects other records as `non-canonical key`.
pub trait KeyCodec {
    /// Decodes the bytes of a key to text. `raw` may be empty. Records with a null key do not reach the
    /// codec.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] rejects the record, and users see its text.
    fn decode_key<'a>(&self, raw: &'a [u8]) -> Result<Cow<'a, str>, CodecError>;

    /// Encodes the text of a key to bytes.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] if no record can have this key.
    fn encode_key<'a>(&self, key: &'a str) -> Result<Cow<'a, [u8]>, CodecError>;
}

/// A key, split into a group and a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKey<'a> {
    /// The name of the group.
    pub group: Cow<'a, str>,
    /// The name of the member, unique within its group.
    pub member: Cow<'a, str>,
}

impl<'a> GroupKey<'a> {
    /// Creates a pair of a group and a member.
    pub fn new(group: impl Into<Cow<'a, str>>, member: impl Into<Cow<'a, str>>) -> Self {
        Self { group: group.into(), member: member.into() }
    }
}

/// Converts between keys and pairs of a group and a member.
///
/// `join(split(key))` must return the key. Otherwise the host treats the key as foreign.
pub trait GroupScheme {
    /// Splits a key into group and member. Returns `None` for a foreign key: one that does not belong to this
    /// scheme.
    fn split<'a>(&self, key: &'a str) -> Option<GroupKey<'a>>;

    /// Joins group and member to a key.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] if this pair has no key.
    fn join(&self, group: &str, member: &str) -> Result<String, CodecError>;
}

/// What the host uses an instance of a component for.
#[derive(Debug, Clone)]
pub struct Context {
    /// The topic whose records the instance will receive.
    pub topic: String,
    /// Whether the host uses the instance for values, for keys or for groups.
    pub role: Role,
    /// The user's configuration: JSON text, `{}` if the user gives none.
    pub config: String,
}

/// Describes a component, and creates its codec from a configuration. Optional.
///
/// A codec that does not implement it is created with [`Default`].
///
/// ```
/// use ktables_guest::{Context, Info, Plugin};
///
/// struct Scaled {
///     factor: u32,
/// }
///
/// impl Plugin for Scaled {
///     fn describe() -> Info {
///         Info { name: "scaled".to_owned(), version: "1.0".to_owned(), wants_headers: false }
///     }
///
///     /// `context.config` is JSON text. A type with `#[serde(default, deny_unknown_fields)]` is a
///     /// convenient way to parse it.
///     fn configure(context: &Context) -> Result<Self, String> {
///         match context.config.as_str() {
///             "{}" => Ok(Self { factor: 1 }),
///             config => Err(format!("topic {}: unknown setting in {config}", context.topic)),
///         }
///     }
/// }
/// ```
pub trait Plugin: Sized {
    /// Returns the name and the version of the component, and whether [`ValueCodec::decode`] needs the
    /// headers of records.
    fn describe() -> Info;

    /// Creates the codec from the user's configuration.
    ///
    /// # Errors
    ///
    /// A text for the user, which should say which setting is wrong, and why. The table does not start.
    fn configure(context: &Context) -> Result<Self, String>;
}
