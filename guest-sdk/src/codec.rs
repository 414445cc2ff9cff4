//! The traits a codec implements. Ordinary Rust: nothing here knows of
//! WebAssembly.

use std::borrow::Cow;

use crate::{CodecError, Encoded, Header, Info, Role};

/// Between the bytes of a record's value and JSON text.
pub trait ValueCodec {
    /// The JSON text of a value.
    ///
    /// Text that already stands in `raw` can be borrowed: a codec that only
    /// checks copies nothing. `raw` may be empty; a record with a null value is
    /// a delete and does not come here. `headers` is empty unless
    /// [`Plugin::describe`] asks for headers.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] rejects the record; its text is shown to people.
    fn decode<'a>(&self, raw: &'a [u8], headers: &[Header]) -> Result<Cow<'a, str>, CodecError>;

    /// The bytes of a value given as JSON text. By default the host decodes the
    /// answer again and publishes only what gives the same JSON back.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] refuses the write. The default is for decode-only
    /// codecs: always [`CodecError::Unsupported`].
    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        let _ = value;
        Err(CodecError::Unsupported("this codec only decodes".to_owned()))
    }
}

/// Between the bytes of a record's key and text.
///
/// `encode_key(decode_key(raw))` must give `raw` back: Kafka compacts by the bytes, a
/// table looks up by the text. The host rejects other records as
/// `non-canonical key`.
pub trait KeyCodec {
    /// The text of a key. `raw` may be empty; it is never a null key.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] rejects the record; its text is shown to people.
    fn decode_key<'a>(&self, raw: &'a [u8]) -> Result<Cow<'a, str>, CodecError>;

    /// The bytes of a key.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] says that no record can have this key.
    fn encode_key<'a>(&self, key: &'a str) -> Result<Cow<'a, [u8]>, CodecError>;
}

/// A key seen as a member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKey<'a> {
    /// The group's name.
    pub group: Cow<'a, str>,
    /// The member's name, unique within its group.
    pub member: Cow<'a, str>,
}

impl<'a> GroupKey<'a> {
    /// A member of a group.
    pub fn new(group: impl Into<Cow<'a, str>>, member: impl Into<Cow<'a, str>>) -> Self {
        Self { group: group.into(), member: member.into() }
    }
}

/// Between a flat key and the pair of a group and a member.
///
/// `join(split(key))` must give the key back, else the host takes the key for a
/// foreign one.
pub trait GroupScheme {
    /// The pair that a key stands for; `None` for a foreign key, one that does
    /// not belong to this scheme.
    fn split<'a>(&self, key: &'a str) -> Option<GroupKey<'a>>;

    /// The key of a pair.
    ///
    /// # Errors
    ///
    /// A [`CodecError`] says that this pair has no key.
    fn join(&self, group: &str, member: &str) -> Result<String, CodecError>;
}

/// What an instance of a component is made for.
#[derive(Debug, Clone)]
pub struct Context {
    /// The topic whose records it will see.
    pub topic: String,
    /// What it will be asked to do.
    pub role: Role,
    /// The user's configuration: JSON text, `{}` where none is given.
    pub config: String,
}

/// Optional: what a component says of itself, and how it is configured.
///
/// A codec without it is made by its [`Default`].
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
///     /// `context.config` is JSON text; serde's `#[serde(default, deny_unknown_fields)]`
///     /// makes the most of it.
///     fn configure(context: &Context) -> Result<Self, String> {
///         match context.config.as_str() {
///             "{}" => Ok(Self { factor: 1 }),
///             config => Err(format!("topic {}: unknown setting in {config}", context.topic)),
///         }
///     }
/// }
/// ```
pub trait Plugin: Sized {
    /// A name, a version, and whether [`ValueCodec::decode`] is to get headers.
    fn describe() -> Info;

    /// Makes the codec from the user's configuration.
    ///
    /// # Errors
    ///
    /// The text is shown to the user, and the table does not start: say what is
    /// wrong with which setting.
    fn configure(context: &Context) -> Result<Self, String>;
}
