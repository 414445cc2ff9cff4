//! The standard streams of a guest.

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::wasm::guest_output::{About, GuestOutput};

/// How many bytes a guest may write at once.
const WRITE_BYTES: usize = 64 << 10;

/// Standard output or standard error.
#[derive(Debug)]
pub(super) struct OutputWriter {
    pub(super) output: GuestOutput,
    pub(super) about: About,
}

#[async_trait]
impl Pollable for OutputWriter {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for OutputWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(&bytes, self.about);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

/// Standard input, which is closed.
#[derive(Debug)]
pub(super) struct ClosedInput;

#[async_trait]
impl Pollable for ClosedInput {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for ClosedInput {
    fn read(&mut self, _: usize) -> StreamResult<Bytes> {
        Err(StreamError::Closed)
    }
}
