//! Implements the generated traits with the traits of this crate. The simple form calls the codec once, the
//! batch form once for each item of a packed list.

use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::bindings::group::exports::ktables::codec::{group_scheme, group_scheme_batch};
use crate::bindings::key::exports::ktables::codec::{key_codec, key_codec_batch};
use crate::bindings::plugin::exports::ktables::codec::plugin;
use crate::bindings::value::exports::ktables::codec::{value_codec, value_codec_batch};
use crate::bindings::{Packed, SlotError};
use crate::{CodecError, Context, Encoded, GroupScheme, Header, Info, KeyCodec, Plugin, ValueCodec};

/// The storage of a component's only codec.
pub type CodecCell<T> = OnceLock<T>;

/// A codec that a component exports. A component has one value of it.
pub trait ExportedCodec: Sized + 'static {
    /// Returns the static that stores the codec.
    fn cell() -> &'static CodecCell<Self>;

    /// Creates the codec when the host calls it without calling `configure` before. Panics if the codec needs
    /// a configuration.
    fn create_unconfigured() -> Self;

    /// Returns the codec. The first call creates it, unless it was configured.
    fn get() -> &'static Self {
        Self::cell().get_or_init(|| {
            crate::log::report_panics();
            Self::create_unconfigured()
        })
    }
}

/// Implements the generated traits with a [`ValueCodec`].
#[derive(Debug)]
pub struct ValueAdapter<T>(PhantomData<T>);

impl<T: ValueCodec> ValueAdapter<T> {
    /// Used by the macro outside WebAssembly, to check the trait bound.
    pub const IMPLEMENTED: () = ();
}

impl<T: ValueCodec + ExportedCodec> value_codec::Guest for ValueAdapter<T> {
    fn decode(raw: Vec<u8>, headers: Vec<Header>) -> Result<String, CodecError> {
        T::get().decode(&raw, &headers).map(Into::into)
    }

    fn encode(value: String) -> Result<Encoded, CodecError> {
        T::get().encode(&value)
    }
}

impl<T: ValueCodec + ExportedCodec> value_codec_batch::Guest for ValueAdapter<T> {
    fn decode(raw: Packed, headers: Vec<Vec<Header>>) -> value_codec_batch::Decoded {
        let codec = T::get();
        let mut answers = BatchAnswers::with_capacity_of(&raw);
        for (index, item) in unpack(&raw).enumerate() {
            let headers = headers.get(index).map_or(&[][..], Vec::as_slice);
            answers.push(codec.decode(item, headers).as_deref().map(str::as_bytes).map_err(Clone::clone));
        }
        value_codec_batch::Decoded { values: answers.packed, errors: answers.errors }
    }

    fn encode(values: Packed) -> value_codec_batch::EncodedValues {
        let codec = T::get();
        let mut answers = BatchAnswers::with_capacity_of(&values);
        let mut headers = Vec::new();
        for item in unpack(&values) {
            let encoded = parse_text(item).and_then(|value| codec.encode(value));
            answers.push(encoded.as_ref().map(|e| e.raw.as_slice()).map_err(Clone::clone));
            headers.push(encoded.map_or_else(|_| Vec::new(), |e| e.headers));
        }
        if headers.iter().all(Vec::is_empty) {
            headers.clear();
        }
        value_codec_batch::EncodedValues { raw: answers.packed, headers, errors: answers.errors }
    }
}

/// Implements the generated traits with a [`KeyCodec`].
#[derive(Debug)]
pub struct KeyAdapter<T>(PhantomData<T>);

impl<T: KeyCodec> KeyAdapter<T> {
    /// Used by the macro outside WebAssembly, to check the trait bound.
    pub const IMPLEMENTED: () = ();
}

impl<T: KeyCodec + ExportedCodec> key_codec::Guest for KeyAdapter<T> {
    fn decode(raw: Vec<u8>) -> Result<String, CodecError> {
        T::get().decode_key(&raw).map(Into::into)
    }

    fn encode(key: String) -> Result<Vec<u8>, CodecError> {
        T::get().encode_key(&key).map(Into::into)
    }
}

impl<T: KeyCodec + ExportedCodec> key_codec_batch::Guest for KeyAdapter<T> {
    fn decode(raw: Packed) -> key_codec_batch::Converted {
        let codec = T::get();
        let mut answers = BatchAnswers::with_capacity_of(&raw);
        for item in unpack(&raw) {
            answers.push(codec.decode_key(item).as_deref().map(str::as_bytes).map_err(Clone::clone));
        }
        key_codec_batch::Converted { keys: answers.packed, errors: answers.errors }
    }

    fn encode(keys: Packed) -> key_codec_batch::Converted {
        let codec = T::get();
        let mut answers = BatchAnswers::with_capacity_of(&keys);
        for item in unpack(&keys) {
            let raw = parse_text(item).and_then(|key| codec.encode_key(key));
            answers.push(raw.as_deref().map_err(Clone::clone));
        }
        key_codec_batch::Converted { keys: answers.packed, errors: answers.errors }
    }
}

/// Implements the generated traits with a [`GroupScheme`].
#[derive(Debug)]
pub struct SchemeAdapter<T>(PhantomData<T>);

impl<T: GroupScheme> SchemeAdapter<T> {
    /// Used by the macro outside WebAssembly, to check the trait bound.
    pub const IMPLEMENTED: () = ();
}

impl<T: GroupScheme + ExportedCodec> group_scheme::Guest for SchemeAdapter<T> {
    fn split(key: String) -> Option<group_scheme::GroupKey> {
        let pair = T::get().split(&key)?;
        Some(group_scheme::GroupKey { group: pair.group.into(), member: pair.member.into() })
    }

    fn join(group: String, member: String) -> Result<String, CodecError> {
        T::get().join(&group, &member)
    }
}

impl<T: GroupScheme + ExportedCodec> group_scheme_batch::Guest for SchemeAdapter<T> {
    fn split(keys: Packed) -> group_scheme_batch::SplitKeys {
        let scheme = T::get();
        let mut groups = BatchAnswers::with_capacity_of(&keys);
        let mut members = BatchAnswers::with_capacity_of(&keys);
        let mut foreign = Vec::new();
        for (index, item) in unpack(&keys).enumerate() {
            let pair = parse_text(item).ok().and_then(|key| scheme.split(key));
            if pair.is_none() {
                foreign.push(to_u32(index));
            }
            groups.push(Ok(pair.as_ref().map_or(&[][..], |p| p.group.as_bytes())));
            members.push(Ok(pair.as_ref().map_or(&[][..], |p| p.member.as_bytes())));
        }
        group_scheme_batch::SplitKeys { groups: groups.packed, members: members.packed, foreign }
    }

    fn join(groups: Packed, members: Packed) -> group_scheme_batch::JoinedKeys {
        let scheme = T::get();
        let mut answers = BatchAnswers::with_capacity_of(&groups);
        for (group, member) in unpack(&groups).zip(unpack(&members)) {
            let key = parse_text(group)
                .and_then(|group| parse_text(member).and_then(|member| scheme.join(group, member)));
            answers.push(key.as_deref().map(str::as_bytes).map_err(Clone::clone));
        }
        group_scheme_batch::JoinedKeys { keys: answers.packed, errors: answers.errors }
    }
}

/// Implements the generated trait with a [`Plugin`].
#[derive(Debug)]
pub struct PluginAdapter<T>(PhantomData<T>);

impl<T: Plugin> PluginAdapter<T> {
    /// Used by the macro outside WebAssembly, to check the trait bound.
    pub const IMPLEMENTED: () = ();
}

impl<T: Plugin + ExportedCodec> plugin::Guest for PluginAdapter<T> {
    fn describe() -> Info {
        crate::log::report_panics();
        T::describe()
    }

    fn configure(context: plugin::Context) -> Result<(), String> {
        crate::log::report_panics();
        let plugin::Context { topic, role, config } = context;
        let codec = T::configure(&Context { topic, role, config })?;
        T::cell().set(codec).map_err(|_| "the host called `configure` twice".to_owned())
    }
}

/// The answers for a batch: a packed item for each, which is empty for an item with an error.
struct BatchAnswers {
    packed: Packed,
    errors: Vec<SlotError>,
}

impl BatchAnswers {
    /// Creates an empty batch of answers, with capacity for answers that are about as long as these items.
    fn with_capacity_of(items: &Packed) -> Self {
        let packed = Packed {
            bytes: Vec::with_capacity(items.bytes.len()),
            ends: Vec::with_capacity(items.ends.len()),
        };
        Self { packed, errors: Vec::new() }
    }

    fn push(&mut self, item: Result<&[u8], CodecError>) {
        match item {
            Ok(bytes) => self.packed.bytes.extend_from_slice(bytes),
            Err(error) => {
                let index = to_u32(self.packed.ends.len());
                self.errors.push(SlotError { index, error });
            }
        }
        self.packed.ends.push(to_u32(self.packed.bytes.len()));
    }
}

/// Returns the items of a packed list.
fn unpack(packed: &Packed) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    packed.ends.iter().map(move |&end| {
        let end = end as usize;
        let item = &packed.bytes[start..end];
        start = end;
        item
    })
}

fn parse_text(item: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(item).map_err(|error| CodecError::Malformed(format!("not UTF-8: {error}")))
}

/// Converts an index or a length of a packed list.
fn to_u32(number: usize) -> u32 {
    // OK because a component's memory has 32-bit addresses.
    u32::try_from(number).expect("a component's memory has 32-bit addresses")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    #[derive(Default)]
    struct Upper;

    impl ValueCodec for Upper {
        fn decode<'a>(&self, raw: &'a [u8], headers: &[Header]) -> Result<Cow<'a, str>, CodecError> {
            let text = parse_text(raw)?;
            if text == "bad" {
                return Err(CodecError::Invalid("bad".to_owned()));
            }
            Ok(format!("{}{}", text.to_uppercase(), headers.len()).into())
        }
    }

    crate::export!(Upper: ValueCodec);

    fn pack(items: &[&str]) -> Packed {
        let mut answers = BatchAnswers { packed: Packed { bytes: vec![], ends: vec![] }, errors: vec![] };
        items.iter().for_each(|item| answers.push(Ok(item.as_bytes())));
        answers.packed
    }

    #[test]
    fn a_batch_has_an_answer_for_each_item_and_the_indices_of_errors() {
        use value_codec_batch::Guest as _;
        let answer = ValueAdapter::<Upper>::decode(pack(&["a", "bad", "", "c"]), Vec::new());
        let values: Vec<_> = unpack(&answer.values).collect();
        assert_eq!(values, [&b"A0"[..], b"", b"0", b"C0"]);
        let errors: Vec<_> = answer.errors.iter().map(|e| e.index).collect();
        assert_eq!(errors, [1]);
    }

    #[test]
    fn each_item_is_decoded_with_its_headers() {
        use value_codec_batch::Guest as _;
        let header = Header { name: "h".to_owned(), value: None };
        let answer = ValueAdapter::<Upper>::decode(pack(&["a", "b"]), vec![vec![], vec![header]]);
        assert_eq!(unpack(&answer.values).collect::<Vec<_>>(), [b"A0", b"B1"]);
    }

    #[test]
    fn encode_is_unsupported_unless_implemented() {
        use value_codec::Guest as _;
        assert!(matches!(ValueAdapter::<Upper>::encode("1".to_owned()), Err(CodecError::Unsupported(_))));
    }
}
