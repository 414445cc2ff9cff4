//! The simple form only, as a hand-written guest may have it: values and keys like
//! `hostile`'s, or JSON that is checked (configuration `{"mode":"json"}`); a key
//! codec that folds case, so that keys with capitals are not canonical; a group
//! scheme that takes some keys for others.

#[path = "../../hostile/src/deed.rs"]
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
            let checks = context.config.contains("json");
            CHECKS_JSON.set(checks).map_err(|_| "configured twice".into())
        }
    }

    /// Text without a check, so that the host's is tried.
    fn text(bytes: Vec<u8>) -> String {
        // SAFETY: only the host looks at it, and it lifts bytes.
        unsafe { String::from_utf8_unchecked(bytes) }
    }

    impl value_codec::Guest for Simple {
        fn decode(raw: Vec<u8>, _: Vec<Header>) -> Result<String, CodecError> {
            if CHECKS_JSON.get() == Some(&true)
                && let Err(error) = serde_json::from_slice::<&RawValue>(&raw)
            {
                return Err(CodecError::Malformed(error.to_string()));
            }
            match deed(&raw) {
                Deed::Answer => Err(CodecError::Invalid("asked to".into())),
                Deed::Utf8 => Ok(text(b"\"\xff\"".to_vec())),
                Deed::Json => Ok("{".into()),
                Deed::Output => Ok(text(vec![b'1'; TOO_MUCH])),
                Deed::Items | Deed::Ends | Deed::Behave => Ok(text(raw)),
            }
        }

        fn encode(value: String) -> Result<Encoded, CodecError> {
            Ok(Encoded { raw: value.into_bytes(), headers: Vec::new() })
        }
    }

    impl key_codec::Guest for Simple {
        fn decode(raw: Vec<u8>) -> Result<String, CodecError> {
            match deed(&raw) {
                Deed::Answer => Err(CodecError::Invalid("asked to".into())),
                Deed::Utf8 => Ok(text(b"\xff".to_vec())),
                Deed::Output => Ok(text(vec![b'k'; TOO_MUCH])),
                _ => Ok(text(raw.to_ascii_lowercase())),
            }
        }

        fn encode(key: String) -> Result<Vec<u8>, CodecError> {
            Ok(key.into_bytes())
        }
    }

    /// A group that has no keys.
    const REFUSED: &str = "refused";

    /// Takes every key for a member, and gives most back wrong.
    impl group_scheme::Guest for Simple {
        fn split(key: String) -> Option<GroupKey> {
            let (group, member) = match deed(key.as_bytes()) {
                Deed::Behave => key.split_once('.')?,
                Deed::Utf8 => return Some(GroupKey { group: text(b"\xff".to_vec()), member: key }),
                Deed::Output => return Some(GroupKey { group: text(vec![b'g'; TOO_MUCH]), member: key }),
                _ => (REFUSED, &*key),
            };
            Some(GroupKey { group: group.into(), member: member.trim_start_matches('!').into() })
        }

        fn join(group: String, member: String) -> Result<String, CodecError> {
            if group == REFUSED {
                return Err(CodecError::Invalid("asked to".into()));
            }
            Ok(format!("{group}.{member}"))
        }
    }

    export!(Simple);
}
