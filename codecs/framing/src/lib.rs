//! What the codecs for schema registries share: how records name their schema ([`Frame`]), and which schema a codec writes
//! with ([`Write`]).

mod frame;
mod value_path;
mod write;

pub use frame::{Frame, SchemaId};
pub use value_path::{ValuePath, shorten};
pub use write::{Framing, Registration, Strategy, Write};
