//! A guest that misbehaves on request: a value `poison:…` requests an answer or a fault, and any other value
//! is returned unchanged. It uses the generated bindings, because the SDK does not let a codec break the
//! contract. It exports the batch form only.

pub mod answer;

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

    use crate::answer::{Answer, TOO_LARGE_BYTES, choose_answer};

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
                match choose_answer(item) {
                    Answer::Error => {
                        let error = CodecError::Invalid("the value requests an error".into());
                        errors.push(SlotError { index, error });
                    }
                    Answer::InvalidUtf8 => bytes.extend(b"\"\xff\""),
                    Answer::InvalidJson => bytes.extend(b"{"),
                    Answer::TooLarge => bytes.resize(bytes.len() + TOO_LARGE_BYTES, b'1'),
                    Answer::ExtraItem => ends.push(bytes.len() as u32),
                    Answer::InvalidEnds => ends.push(u32::MAX),
                    Answer::Unchanged => bytes.extend(item),
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
