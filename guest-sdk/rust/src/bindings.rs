//! The generated bindings: one module for each interface and its batch form, so that a component exports only
//! what it implements. Only the worlds, and the conversions at the end, are written by hand.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the ABI is unsafe by nature"
)]

pub mod value {
    wit_bindgen::generate!({
        inline: "
            package ktables:guest-sdk;
            world value {
                include ktables:codec/value-codec-guest@0.1.0;
                include ktables:codec/value-codec-batch-guest@0.1.0;
            }
        ",
        path: "wit/0.1",
        pub_export_macro: true,
        export_macro_name: "export_value",
        generate_all,
    });
}

pub mod key {
    wit_bindgen::generate!({
        inline: "
            package ktables:guest-sdk;
            world key {
                include ktables:codec/key-codec-guest@0.1.0;
                include ktables:codec/key-codec-batch-guest@0.1.0;
            }
        ",
        path: "wit/0.1",
        pub_export_macro: true,
        export_macro_name: "export_key",
        with: { "ktables:codec/types@0.1.0": crate::bindings::value::ktables::codec::types },
    });
}

pub mod group {
    wit_bindgen::generate!({
        inline: "
            package ktables:guest-sdk;
            world group {
                include ktables:codec/group-scheme-guest@0.1.0;
                include ktables:codec/group-scheme-batch-guest@0.1.0;
            }
        ",
        path: "wit/0.1",
        pub_export_macro: true,
        export_macro_name: "export_group",
        with: { "ktables:codec/types@0.1.0": crate::bindings::value::ktables::codec::types },
    });
}

pub mod plugin {
    wit_bindgen::generate!({
        inline: "
            package ktables:guest-sdk;
            world plugin {
                include ktables:codec/plugin-guest@0.1.0;
            }
        ",
        path: "wit/0.1",
        pub_export_macro: true,
        export_macro_name: "export_plugin",
    });
}

pub mod logging {
    wit_bindgen::generate!({
        inline: "
            package ktables:guest-sdk;
            world logging {
                include ktables:codec/logging-guest@0.1.0;
            }
        ",
        path: "wit/0.1",
        generate_all,
    });
}

pub mod schemas {
    wit_bindgen::generate!({
        inline: "
            package ktables:guest-sdk;
            world schemas {
                include ktables:codec/schemas-guest@0.1.0;
            }
        ",
        path: "wit/0.1",
        generate_all,
    });
}

pub use plugin::exports::ktables::codec::plugin::{Info, Role};
pub use value::ktables::codec::types::{CodecError, Encoded, Header, Packed, SlotError};

/// Creates a value without headers.
impl<const N: usize> From<[u8; N]> for Encoded {
    fn from(raw: [u8; N]) -> Self {
        raw.to_vec().into()
    }
}

/// Creates a value without headers.
impl From<Vec<u8>> for Encoded {
    fn from(raw: Vec<u8>) -> Self {
        Self { raw, headers: Vec::new() }
    }
}
