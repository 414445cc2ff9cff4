//! Write a codec for ktables in Rust.
//!
//! A codec turns the bytes of a Kafka record into JSON text and back. Implement
//! a trait, name it in [`export!`], build for `wasm32-unknown-unknown`, and turn
//! the result into a component with `ktables codec build`. The component imports
//! nothing but the host's log, and exports the one-record and the batch form of
//! each interface.
//!
//! | implement | for |
//! |---|---|
//! | [`ValueCodec`] | record values: bytes to JSON text and back |
//! | [`KeyCodec`] | record keys: bytes to text and back |
//! | [`GroupScheme`] | keys that name a member of a group |
//! | [`Plugin`] | a name and a version, the user's configuration, record headers |
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
//! // The trait is ordinary Rust: its tests run natively, without WebAssembly.
//! # fn main() {
//! assert_eq!(Counter.decode(&[0, 0, 1, 0], &[]).unwrap(), "256");
//! assert_eq!(Counter.encode("256").unwrap().raw, [0, 0, 1, 0]);
//! assert!(matches!(Counter.decode(b"x", &[]), Err(CodecError::Malformed(_))));
//! # }
//! ```
//!
//! # Rules for codecs
//!
//! - **Pure**: the same bytes give the same answer, whatever came before. The
//!   host runs several instances and replaces any of them at any time.
//! - **Errors reject one record** and are shown to people: say what was expected,
//!   what was found, and where.
//! - **A panic is a fault**: the host throws the instance away, rejects the
//!   record, and shows the panic's message.

mod adapter;
mod bindings;
mod codec;
mod export;
mod json;
mod log;

pub use bindings::{CodecError, Encoded, Header, Info, Role};
pub use codec::{Context, GroupKey, GroupScheme, KeyCodec, Plugin, ValueCodec};
pub use json::check_json;
pub use log::{Level, log};

/// What [`export!`] expands to; not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::adapter::{Instance, KeyAdapter, PluginAdapter, SchemeAdapter, Slot, ValueAdapter};
    pub use crate::bindings::{group, key, plugin, value};
}
