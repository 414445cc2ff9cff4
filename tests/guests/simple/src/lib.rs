//! A guest that exports the simple form only, as a hand-written guest may. Values and keys can request the
//! same answers and faults as those of `hostile`, and the configuration `{"mode":"json"}` makes it check that
//! values are JSON. The key codec folds case, so keys with capitals are not canonical. The group scheme joins
//! some keys to other keys.

#[path = "../../hostile/src/answer.rs"]
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
        inline: "
            package test:simple;
            world simple {
                include ktables:codec/value-codec-guest@0.1.0;
                include ktables:codec/key-codec-guest@0.1.0;
                include ktables:codec/group-scheme-guest@0.1.0;
                include ktables:codec/plugin-guest@0.1.0;
            }
        ",
        path: "../../../wit/0.1",
        generate_all,
    });

    use std::sync::OnceLock;

    use exports::ktables::codec::{group_scheme, key_codec, plugin, value_codec};
    use ktables::codec::types::{CodecError, Encoded, GroupKey, Header};
    use serde_json::value::RawValue;

    struct Simple;

    static CHECKS_JSON: OnceLock<bool> = OnceLock::new();

    impl plugin::Guest for Simple {
        fn describe() -> plugin::Info {
            plugin::Info { name: "simple".into(), version: "1".into(), wants_headers: false }
        }

        fn configure(context: plugin::Context) -> Result<(), String> {
            let checks_json = context.config.contains("json");
            CHECKS_JSON.set(checks_json).map_err(|_| "the host called `configure` twice".into())
        }
    }

    /// Converts bytes to text without a check, so that the check of the host is tested.
    fn unchecked_text(bytes: Vec<u8>) -> String {
        // SAFETY: only the host reads the text, and it reads it as bytes.
        unsafe { String::from_utf8_unchecked(bytes) }
    }

    impl value_codec::Guest for Simple {
        fn decode(raw: Vec<u8>, _: Vec<Header>) -> Result<String, CodecError> {
            if CHECKS_JSON.get() == Some(&true)
                && let Err(error) = serde_json::from_slice::<&RawValue>(&raw)
            {
                return Err(CodecError::Malformed(error.to_string()));
            }
            match choose_answer(&raw) {
                Answer::Error => Err(CodecError::Invalid("the value requests an error".into())),
                Answer::InvalidUtf8 => Ok(unchecked_text(b"\"\xff\"".to_vec())),
                Answer::InvalidJson => Ok("{".into()),
                Answer::TooLarge => Ok(unchecked_text(vec![b'1'; TOO_LARGE_BYTES])),
                Answer::ExtraItem | Answer::InvalidEnds | Answer::Unchanged => Ok(unchecked_text(raw)),
            }
        }

        fn encode(value: String) -> Result<Encoded, CodecError> {
            Ok(Encoded { raw: value.into_bytes(), headers: Vec::new() })
        }
    }

    impl key_codec::Guest for Simple {
        fn decode(raw: Vec<u8>) -> Result<String, CodecError> {
            match choose_answer(&raw) {
                Answer::Error => Err(CodecError::Invalid("the key requests an error".into())),
                Answer::InvalidUtf8 => Ok(unchecked_text(b"\xff".to_vec())),
                Answer::TooLarge => Ok(unchecked_text(vec![b'k'; TOO_LARGE_BYTES])),
                _ => Ok(unchecked_text(raw.to_ascii_lowercase())),
            }
        }

        fn encode(key: String) -> Result<Vec<u8>, CodecError> {
            Ok(key.into_bytes())
        }
    }

    /// A group whose pairs cannot be joined.
    const REFUSED: &str = "refused";

    /// Splits keys `GROUP.MEMBER`, and removes each `!` before the member. Joining does not return such a
    /// key, so the host must treat it as foreign.
    impl group_scheme::Guest for Simple {
        fn split(key: String) -> Option<GroupKey> {
            let (group, member) = match choose_answer(key.as_bytes()) {
                Answer::Unchanged => key.split_once('.')?,
                Answer::InvalidUtf8 => {
                    return Some(GroupKey { group: unchecked_text(b"\xff".to_vec()), member: key });
                }
                Answer::TooLarge => {
                    let group = unchecked_text(vec![b'g'; TOO_LARGE_BYTES]);
                    return Some(GroupKey { group, member: key });
                }
                _ => (REFUSED, &*key),
            };
            Some(GroupKey { group: group.into(), member: member.trim_start_matches('!').into() })
        }

        fn join(group: String, member: String) -> Result<String, CodecError> {
            if group == REFUSED {
                return Err(CodecError::Invalid("the key requests an error".into()));
            }
            Ok(format!("{group}.{member}"))
        }
    }

    export!(Simple);
}
