//! `wasi:io` and the standard streams, without waiting.

use futures_util::FutureExt;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdin, stdout};
use wasmtime_wasi::p2::bindings::io::streams as waiting;
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};

use crate::wasm::guest_output::About;
use crate::wasm::imports::wasi::Forbidden;
use crate::wasm::imports::wasi::output::{ClosedInput, OutputWriter};
use crate::wasm::state::State;

type Input = Resource<DynInputStream>;
type Output = Resource<DynOutputStream>;

/// The error of a guest that waits, or asks whether it would have to.
fn waits() -> wasmtime::Error {
    Forbidden("waited (for a time, a file or a socket), which a codec cannot do").into()
}

/// Returns the result of a function that may wait, if it does not.
fn at_once<T>(result: impl Future<Output = StreamResult<T>>) -> StreamResult<T> {
    result.now_or_never().unwrap_or_else(|| Err(StreamError::Trap(waits())))
}

impl State {
    fn open_output(&mut self, about: About) -> wasmtime::Result<Output> {
        let stream: DynOutputStream = Box::new(OutputWriter { output: self.output.clone(), about });
        Ok(self.wasi_table().push(stream)?)
    }
}

impl stdout::Host for State {
    fn get_stdout(&mut self) -> wasmtime::Result<Output> {
        self.open_output(About::Other)
    }
}

impl stderr::Host for State {
    fn get_stderr(&mut self) -> wasmtime::Result<Output> {
        self.open_output(About::Error)
    }
}

impl stdin::Host for State {
    fn get_stdin(&mut self) -> wasmtime::Result<Input> {
        let stream: DynInputStream = Box::new(ClosedInput);
        Ok(self.wasi_table().push(stream)?)
    }
}

impl poll::Host for State {
    fn poll(&mut self, _: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        Err(waits())
    }
}

impl poll::HostPollable for State {
    fn block(&mut self, _: Resource<DynPollable>) -> wasmtime::Result<()> {
        Err(waits())
    }

    fn ready(&mut self, _: Resource<DynPollable>) -> wasmtime::Result<bool> {
        Err(waits())
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        wasmtime_wasi::p2::bindings::io::poll::HostPollable::drop(self.wasi_table(), pollable)
    }
}

impl streams::Host for State {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.wasi_table(), error)
    }
}

impl streams::HostOutputStream for State {
    fn drop(&mut self, stream: Output) -> wasmtime::Result<()> {
        // Nothing is under way that would have to be cancelled.
        self.wasi_table().delete(stream)?;
        Ok(())
    }

    fn check_write(&mut self, stream: Output) -> StreamResult<u64> {
        waiting::HostOutputStream::check_write(self.wasi_table(), stream)
    }

    fn write(&mut self, stream: Output, bytes: Vec<u8>) -> StreamResult<()> {
        waiting::HostOutputStream::write(self.wasi_table(), stream, bytes)
    }

    fn blocking_write_and_flush(&mut self, stream: Output, bytes: Vec<u8>) -> StreamResult<()> {
        at_once(waiting::HostOutputStream::blocking_write_and_flush(self.wasi_table(), stream, bytes))
    }

    fn blocking_write_zeroes_and_flush(&mut self, stream: Output, len: u64) -> StreamResult<()> {
        at_once(waiting::HostOutputStream::blocking_write_zeroes_and_flush(self.wasi_table(), stream, len))
    }

    fn subscribe(&mut self, stream: Output) -> wasmtime::Result<Resource<DynPollable>> {
        waiting::HostOutputStream::subscribe(self.wasi_table(), stream)
    }

    fn write_zeroes(&mut self, stream: Output, len: u64) -> StreamResult<()> {
        waiting::HostOutputStream::write_zeroes(self.wasi_table(), stream, len)
    }

    fn flush(&mut self, stream: Output) -> StreamResult<()> {
        waiting::HostOutputStream::flush(self.wasi_table(), stream)
    }

    fn blocking_flush(&mut self, stream: Output) -> StreamResult<()> {
        at_once(waiting::HostOutputStream::blocking_flush(self.wasi_table(), stream))
    }

    fn splice(&mut self, to: Output, from: Input, len: u64) -> StreamResult<u64> {
        waiting::HostOutputStream::splice(self.wasi_table(), to, from, len)
    }

    fn blocking_splice(&mut self, to: Output, from: Input, len: u64) -> StreamResult<u64> {
        at_once(waiting::HostOutputStream::blocking_splice(self.wasi_table(), to, from, len))
    }
}

impl streams::HostInputStream for State {
    fn drop(&mut self, stream: Input) -> wasmtime::Result<()> {
        self.wasi_table().delete(stream)?;
        Ok(())
    }

    fn read(&mut self, stream: Input, len: u64) -> StreamResult<Vec<u8>> {
        waiting::HostInputStream::read(self.wasi_table(), stream, len)
    }

    fn blocking_read(&mut self, stream: Input, len: u64) -> StreamResult<Vec<u8>> {
        at_once(waiting::HostInputStream::blocking_read(self.wasi_table(), stream, len))
    }

    fn skip(&mut self, stream: Input, len: u64) -> StreamResult<u64> {
        waiting::HostInputStream::skip(self.wasi_table(), stream, len)
    }

    fn blocking_skip(&mut self, stream: Input, len: u64) -> StreamResult<u64> {
        at_once(waiting::HostInputStream::blocking_skip(self.wasi_table(), stream, len))
    }

    fn subscribe(&mut self, stream: Input) -> wasmtime::Result<Resource<DynPollable>> {
        waiting::HostInputStream::subscribe(self.wasi_table(), stream)
    }
}
