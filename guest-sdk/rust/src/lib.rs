//! The SDK for ktables codecs in Rust.
//!
//! A codec converts between the bytes of Kafka records and JSON text. Implement a trait, list it in
//! [`export!`], build for `wasm32-unknown-unknown`, and convert the result to a component with
//! `ktables codec build`. The component imports nothing but the host's log, and exports both forms of each
//! interface: one record per call, and many records per call.
//!
//! | implement | for |
//! |---|---|
//! | [`ValueCodec`] | record values: bytes to JSON text and back |
//! | [`KeyCodec`] | record keys: bytes to text and back |
//! | [`GroupScheme`] | keys that consist of a group and a member |
//! | [`Plugin`] | a name and a version, a configuration, headers of records |
//!
//! [`schemas`] looks schemas up in the schema registry that the host is configured with.
//!
//! # Example
//!
//! A value that is a big-endian `u32`, as a JSON number:
//!
//! ```
//! use std::borrow::Cow;
//! use ktables_guest::{CodecError, Encoded, Header, ValueCodec};
//!
//! #[derive(Default)]
//! struct Counter;
//!
//! impl ValueCodec for Counter {
//!     fn decode<'a>(&self, raw: &'a [u8], _headers: &[Header]) -> Result<Cow<'a, str>, CodecError> {
//!         let bytes: [u8; 4] = raw.try_into().map_err(|_| {
//!             CodecError::Malformed(format!("a counter has 4 bytes, this value has {}", raw.len()))
//!         })?;
//!         Ok(u32::from_be_bytes(bytes).to_string().into())
//!     }
//!
//!     fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
//!         let number: u32 = value.trim().parse().map_err(|error| {
//!             CodecError::Invalid(format!("a counter is a whole number below 2^32: {error}"))
//!         })?;
//!         Ok(number.to_be_bytes().into())
//!     }
//! }
//!
//! ktables_guest::export!(Counter: ValueCodec);
//!
//! // The trait is ordinary Rust, so tests run natively, without WebAssembly.
//! # fn main() {
//! assert_eq!(Counter.decode(&[0, 0, 1, 0], &[]).unwrap(), "256");
//! assert_eq!(Counter.encode("256").unwrap().raw, [0, 0, 1, 0]);
//! assert!(matches!(Counter.decode(b"x", &[]), Err(CodecError::Malformed(_))));
//! # }
//! ```
//!
//! # Rules for codecs
//!
//! - **Codecs are pure**: the same bytes give the same answer, independent of earlier calls. The host runs
//!   several instances at once, and may replace any of them at any time.
//! - **An error rejects one record**, and users see its text: say what was expected, what was found, and
//!   where.
//! - **A panic is a fault**: the host drops the instance, rejects the record, and shows the message of the
//!   panic.

mod adapter;
mod bindings;
mod codec;
mod export;
mod json;
mod log;
pub mod schemas;

pub use bindings::{CodecError, Encoded, Header, Info, Role};
pub use codec::{Context, GroupKey, GroupScheme, KeyCodec, Plugin, ValueCodec};
pub use json::check_json;
pub use log::{Level, log};

/// The items that the expansion of [`export!`] uses. Not for other uses.
#[doc(hidden)]
pub mod __private {
    pub use crate::adapter::{
        CodecCell, ExportedCodec, KeyAdapter, PluginAdapter, SchemeAdapter, ValueAdapter,
    };
    pub use crate::bindings::{group, key, plugin, value};
}
