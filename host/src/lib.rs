//! x
pub mod log;
pub mod codec;
#[cfg(feature = "wasm")]
pub mod wasm;
mod packed;
pub use packed::Packed;
pub mod table;
pub mod writer;
