//! What the codecs for schema registries share: how records name their schema ([`Frame`]), the schemas that an instance has
//! compiled ([`Compiled`]), which schema a codec writes with ([`Write`]), and the one form of keys ([`decode_key`]).

mod compiled;
mod frame;
mod key;
mod value_path;
mod write;

pub use compiled::Compiled;
pub use frame::{Frame, SchemaId, write_frame};
pub use key::{decode_key, encode_key};
pub use value_path::{ValuePath, shorten};
pub use write::{Configured, Framing, Registration, Strategy, Write};
