//! Writing to a topic that tables read.
//!
//! A writer encodes values with the codecs, decodes them again to verify that readers will see the values
//! that were written, publishes them, and waits for the acknowledgement. A value that fails verification is
//! not published.

mod error;
mod handle;
mod prepare;
mod publisher;
mod set_many;
mod write;

pub use error::WriteError;
pub use handle::Writer;
pub use set_many::SetMany;
pub use write::{Target, Verify, Write};
