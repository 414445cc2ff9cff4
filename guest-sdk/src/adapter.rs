//! From the traits of this crate to the generated ones: the simple form calls
//! the codec once, the batch form once for each item of a packed list.

use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::bindings::group::exports::ktables::codec::{group_scheme, group_scheme_batch};
use crate::bindings::key::exports::ktables::codec::{key_codec, key_codec_batch};
use crate::bindings::plugin::exports::ktables::codec::plugin;
use crate::bindings::value::exports::ktables::codec::{value_codec, value_codec_batch};
use crate::bindings::{Packed, SlotError};
use crate::{CodecError, Context, Encoded, GroupScheme, Header, Info, KeyCodec, Plugin, ValueCodec};

/// Where the one instance of a codec lives.
pub type Slot<T> = OnceLock<T>;

/// Reaches the one instance of a codec in its component.
pub trait Instance: Sized + 'static {
    /// The static that holds it.
    fn slot() -> &'static Slot<Self>;

    /// What to take where the host configured nothing.
    fn unconfigured() -> Self;

    /// The instance itself.
    fn get() -> &'static Self {
        Self::slot().get_or_init(|| {
            crate::log::report_panics();
            Self::unconfigured()
        })
    }
}

/// A [`ValueCodec`] behind the generated traits.
#[derive(Debug)]
pub struct ValueAdapter<T>(PhantomData<T>);

impl<T: ValueCodec> ValueAdapter<T> {
    /// Named by the macro outside WebAssembly, to check the bound.
    pub const IMPLEMENTED: () = ();
}

impl<T: ValueCodec + Instance> value_codec::Guest for ValueAdapter<T> {
    fn decode(raw: Vec<u8>, headers: Vec<Header>) -> Result<String, CodecError> {
        T::get().decode(&raw, &headers).map(Into::into)
    }

    fn encode(value: String) -> Result<Encoded, CodecError> {
        T::get().encode(&value)
    }
}

impl<T: ValueCodec + Instance> value_codec_batch::Guest for ValueAdapter<T> {
    fn decode(raw: Packed, headers: Vec<Vec<Header>>) -> value_codec_batch::Decoded {
        let codec = T::get();
        let mut out = Slots::with_capacity_of(&raw);
        for (index, item) in items(&raw).enumerate() {
            let headers = headers.get(index).map_or(&[][..], Vec::as_slice);
            out.push(codec.decode(item, headers).as_deref().map(str::as_bytes).map_err(Clone::clone));
        }
        value_codec_batch::Decoded { values: out.packed, errors: out.errors }
    }

    fn encode(values: Packed) -> value_codec_batch::EncodedValues {
        let codec = T::get();
        let mut out = Slots::with_capacity_of(&values);
        let mut headers = Vec::new();
        for item in items(&values) {
            let encoded = text(item).and_then(|value| codec.encode(value));
            out.push(encoded.as_ref().map(|e| e.raw.as_slice()).map_err(Clone::clone));
            headers.push(encoded.map_or_else(|_| Vec::new(), |e| e.headers));
        }
        if headers.iter().all(Vec::is_empty) {
            headers.clear();
        }
        value_codec_batch::EncodedValues { raw: out.packed, headers, errors: out.errors }
    }
}

/// A [`KeyCodec`] behind the generated traits.
#[derive(Debug)]
pub struct KeyAdapter<T>(PhantomData<T>);

impl<T: KeyCodec> KeyAdapter<T> {
    /// Named by the macro outside WebAssembly, to check the bound.
    pub const IMPLEMENTED: () = ();
}

impl<T: KeyCodec + Instance> key_codec::Guest for KeyAdapter<T> {
    fn decode(raw: Vec<u8>) -> Result<String, CodecError> {
        T::get().decode_key(&raw).map(Into::into)
    }

    fn encode(key: String) -> Result<Vec<u8>, CodecError> {
        T::get().encode_key(&key).map(Into::into)
    }
}

impl<T: KeyCodec + Instance> key_codec_batch::Guest for KeyAdapter<T> {
    fn decode(raw: Packed) -> key_codec_batch::Converted {
        let codec = T::get();
        let mut out = Slots::with_capacity_of(&raw);
        for item in items(&raw) {
            out.push(codec.decode_key(item).as_deref().map(str::as_bytes).map_err(Clone::clone));
        }
        key_codec_batch::Converted { keys: out.packed, errors: out.errors }
    }

    fn encode(keys: Packed) -> key_codec_batch::Converted {
        let codec = T::get();
        let mut out = Slots::with_capacity_of(&keys);
        for item in items(&keys) {
            let raw = text(item).and_then(|key| codec.encode_key(key));
            out.push(raw.as_deref().map_err(Clone::clone));
        }
        key_codec_batch::Converted { keys: out.packed, errors: out.errors }
    }
}

/// A [`GroupScheme`] behind the generated traits.
#[derive(Debug)]
pub struct SchemeAdapter<T>(PhantomData<T>);

impl<T: GroupScheme> SchemeAdapter<T> {
    /// Named by the macro outside WebAssembly, to check the bound.
    pub const IMPLEMENTED: () = ();
}

impl<T: GroupScheme + Instance> group_scheme::Guest for SchemeAdapter<T> {
    fn split(key: String) -> Option<group_scheme::GroupKey> {
        let pair = T::get().split(&key)?;
        Some(group_scheme::GroupKey { group: pair.group.into(), member: pair.member.into() })
    }

    fn join(group: String, member: String) -> Result<String, CodecError> {
        T::get().join(&group, &member)
    }
}

impl<T: GroupScheme + Instance> group_scheme_batch::Guest for SchemeAdapter<T> {
    fn split(keys: Packed) -> group_scheme_batch::SplitKeys {
        let scheme = T::get();
        let mut groups = Slots::with_capacity_of(&keys);
        let mut members = Slots::with_capacity_of(&keys);
        let mut foreign = Vec::new();
        for (index, item) in items(&keys).enumerate() {
            let pair = text(item).ok().and_then(|key| scheme.split(key));
            if pair.is_none() {
                foreign.push(offset(index));
            }
            groups.push(Ok(pair.as_ref().map_or(&[][..], |p| p.group.as_bytes())));
            members.push(Ok(pair.as_ref().map_or(&[][..], |p| p.member.as_bytes())));
        }
        group_scheme_batch::SplitKeys { groups: groups.packed, members: members.packed, foreign }
    }

    fn join(groups: Packed, members: Packed) -> group_scheme_batch::JoinedKeys {
        let scheme = T::get();
        let mut out = Slots::with_capacity_of(&groups);
        for (group, member) in items(&groups).zip(items(&members)) {
            let key =
                text(group).and_then(|group| text(member).and_then(|member| scheme.join(group, member)));
            out.push(key.as_deref().map(str::as_bytes).map_err(Clone::clone));
        }
        group_scheme_batch::JoinedKeys { keys: out.packed, errors: out.errors }
    }
}

/// A [`Plugin`] behind the generated trait.
#[derive(Debug)]
pub struct PluginAdapter<T>(PhantomData<T>);

impl<T: Plugin> PluginAdapter<T> {
    /// Named by the macro outside WebAssembly, to check the bound.
    pub const IMPLEMENTED: () = ();
}

impl<T: Plugin + Instance> plugin::Guest for PluginAdapter<T> {
    fn describe() -> Info {
        T::describe()
    }

    fn configure(context: plugin::Context) -> Result<(), String> {
        crate::log::report_panics();
        let plugin::Context { topic, role, config } = context;
        let codec = T::configure(&Context { topic, role, config })?;
        T::slot().set(codec).map_err(|_| "`configure` was called twice".to_owned())
    }
}

/// The slots of a batch's answer.
struct Slots {
    packed: Packed,
    errors: Vec<SlotError>,
}

impl Slots {
    /// Room for answers about as long as what they answer.
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
                let index = offset(self.packed.ends.len());
                self.errors.push(SlotError { index, error });
            }
        }
        self.packed.ends.push(offset(self.packed.bytes.len()));
    }
}

fn items(packed: &Packed) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    packed.ends.iter().map(move |&end| {
        let end = end as usize;
        let item = &packed.bytes[start..end];
        start = end;
        item
    })
}

fn text(item: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(item).map_err(|error| CodecError::Malformed(format!("not UTF-8: {error}")))
}

/// A position in a packed list. A component's memory has 32-bit addresses, so
/// none is too large.
fn offset(position: usize) -> u32 {
    u32::try_from(position).expect("a component's memory has 32-bit addresses")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    #[derive(Default)]
    struct Upper;

    impl ValueCodec for Upper {
        fn decode<'a>(&self, raw: &'a [u8], headers: &[Header]) -> Result<Cow<'a, str>, CodecError> {
            let text = text(raw)?;
            if text == "bad" {
                return Err(CodecError::Invalid("bad".to_owned()));
            }
            Ok(format!("{}{}", text.to_uppercase(), headers.len()).into())
        }
    }

    crate::export!(Upper: ValueCodec);

    fn pack(items: &[&str]) -> Packed {
        let mut slots = Slots { packed: Packed { bytes: vec![], ends: vec![] }, errors: vec![] };
        items.iter().for_each(|item| slots.push(Ok(item.as_bytes())));
        slots.packed
    }

    #[test]
    fn a_batch_answers_as_many_items_and_names_the_bad_ones() {
        use value_codec_batch::Guest as _;
        let answer = ValueAdapter::<Upper>::decode(pack(&["a", "bad", "", "c"]), Vec::new());
        let values: Vec<_> = items(&answer.values).collect();
        assert_eq!(values, [&b"A0"[..], b"", b"0", b"C0"]);
        let errors: Vec<_> = answer.errors.iter().map(|e| e.index).collect();
        assert_eq!(errors, [1]);
    }

    #[test]
    fn headers_reach_their_item() {
        use value_codec_batch::Guest as _;
        let header = Header { name: "h".to_owned(), value: None };
        let answer = ValueAdapter::<Upper>::decode(pack(&["a", "b"]), vec![vec![], vec![header]]);
        assert_eq!(items(&answer.values).collect::<Vec<_>>(), [b"A0", b"B1"]);
    }

    #[test]
    fn encode_is_unsupported_unless_written() {
        use value_codec::Guest as _;
        assert!(matches!(ValueAdapter::<Upper>::encode("1".to_owned()), Err(CodecError::Unsupported(_))));
    }
}
