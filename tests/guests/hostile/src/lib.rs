//! Misbehaves on request: a value `poison:…` does what it says, any other comes
//! back as it is. Written against the bare bindings, because the SDK does not let
//! a codec break the contract. Exports the batch form only.

pub mod deed;

#[cfg(target_family = "wasm")]
mod guest {
    #![allow(
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        unsafe_code,
        clippy::allow_attributes_without_reason,
        reason = "generated code; the ABI is unsafe by nature"
    )]

    use crate::deed::{Deed, TOO_MUCH, deed};

    wit_bindgen::generate!({
        world: "ktables:codec/value-codec-batch-guest@0.1.0",
        path: "../../../wit/0.1",
        generate_all,
    });

    use exports::ktables::codec::value_codec_batch::{Decoded, EncodedValues, Guest};
    use ktables::codec::types::{CodecError, Header, Packed, SlotError};

    struct Hostile;

    impl Guest for Hostile {
        fn decode(raw: Packed, _: Vec<Vec<Header>>) -> Decoded {
            let (mut bytes, mut ends, mut errors) = (Vec::new(), Vec::new(), Vec::new());
            let mut start = 0;
            for (index, end) in (0..).zip(&raw.ends) {
                let item = &raw.bytes[start..*end as usize];
                start = *end as usize;
                match deed(item) {
                    Deed::Answer => {
                        errors.push(SlotError { index, error: CodecError::Invalid("asked to".into()) })
                    }
                    Deed::Utf8 => bytes.extend(b"\"\xff\""),
                    Deed::Json => bytes.extend(b"{"),
                    Deed::Output => bytes.resize(bytes.len() + TOO_MUCH, b'1'),
                    Deed::Items => ends.push(bytes.len() as u32),
                    Deed::Ends => ends.push(u32::MAX),
                    Deed::Behave => bytes.extend(item),
                }
                ends.push(bytes.len() as u32);
            }
            Decoded { values: Packed { bytes, ends }, errors }
        }

        fn encode(values: Packed) -> EncodedValues {
            EncodedValues { raw: values, headers: Vec::new(), errors: Vec::new() }
        }
    }

    export!(Hostile);
}
