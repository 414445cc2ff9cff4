//! Bodies that are written while they are read: lines of JSON, or one JSON object, in chunks of bounded size.

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use serde::Serialize;

/// How many bytes a chunk has about.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// Appends a value as a line of JSON.
pub(super) fn push_line(text: &mut Vec<u8>, value: &impl Serialize) {
    // OK because the values of this crate always serialize.
    serde_json::to_writer(&mut *text, value).expect("serializes");
    text.push(b'\n');
}

/// Creates a body from a function that appends the next part, and returns false when there is no more. It is called
/// only as fast as the client reads.
pub(super) fn body_of_parts(next: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static) -> Body {
    let chunks = stream::unfold(Some(next), |next| async {
        let mut next = next?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut has_more = true;
        while has_more && chunk.len() < CHUNK_BYTES {
            has_more = next(&mut chunk);
        }
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk)), has_more.then_some(next)))
    });
    // Compression polls a stream again after its end.
    Body::from_stream(chunks.fuse())
}
