//! Appends JSON to a text.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Appends what is formatted.
pub(crate) fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // OK because writing to a string does not fail.
    out.write_fmt(text).expect("a string");
}

/// Appends a JSON string.
pub(crate) fn push_string(text: &str, out: &mut String) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        // OK because a string always serializes.
        out.push_str(&serde_json::to_string(text).expect("serializes"));
    }
}

/// Appends bytes as a JSON string in base64.
pub(crate) fn push_base64(bytes: &[u8], out: &mut String) {
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}

/// Appends a UUID as a JSON string.
pub(crate) fn push_uuid(bytes: [u8; 16], out: &mut String) {
    out.push('"');
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            out.push('-');
        }
        push(out, format_args!("{byte:02x}"));
    }
    out.push('"');
}
