//! Runs a fuzz target of the project under libFuzzer. `KTABLES_FUZZ_TARGET` names the target.

#![no_main]

use std::sync::LazyLock;

use avro::Avro;
use json_schema::JsonSchema;
use ktables::fuzzing::TARGETS;
use ktables_guest::{CodecError, Context, Plugin, Role, ValueCodec};
use protobuf::Protobuf;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("KTABLES_FUZZ_TARGET").unwrap_or_default();
    let codecs: [(&str, fn(&[u8])); 3] = [
        ("avro", round_trip::<Avro>),
        ("json-schema", round_trip::<JsonSchema>),
        ("protobuf", round_trip::<Protobuf>),
    ];
    let found = TARGETS.iter().chain(&codecs).find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("KTABLES_FUZZ_TARGET={wanted}: there is no such fuzz target")).1
});

/// Decodes a value with a schema, which are separated by a line break, and encodes it again.
fn round_trip<C: Plugin + ValueCodec>(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (schema, raw) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 1..]);
    let config = serde_json::json!({ "plain": schema }).to_string();
    let context = Context { topic: "t".to_owned(), role: Role::Value, config };
    let Ok(codec) = C::configure(&context) else { return };
    let Ok(json) = codec.decode(raw, &[]) else { return };
    let encoded = match codec.encode(&json) {
        Ok(encoded) => encoded,
        // Required fields of Protobuf are checked when a value is written only.
        Err(CodecError::Invalid(reason)) if reason.ends_with(" is missing") => return,
        Err(error) => panic!("{schema} {json}: {error:?}"),
    };
    assert_eq!(codec.decode(&encoded.raw, &[]).ok().as_deref(), Some(&*json), "{schema}");
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
