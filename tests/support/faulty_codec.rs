//! A codec that fails or blocks while a test wants it to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ktables::Packed;
use ktables::codec::{Answers, Codec, CodecFailure, Encoded, HostFailure, Json, PackedAnswers, ValueCodec};
use ktables::log::Header;

/// The JSON codec with faults that a test sets: decoding fails with an error of the host or of a start, or blocks.
#[derive(Debug, Default)]
pub struct FaultyCodec {
    is_failing: AtomicBool,
    is_blocking: AtomicBool,
    cannot_start: AtomicBool,
}

impl FaultyCodec {
    /// Makes decoding fail until [`FaultyCodec::recover`].
    pub fn fail(&self) {
        self.is_failing.store(true, Ordering::Release);
    }

    /// Makes decoding block until [`FaultyCodec::recover`].
    pub fn block(&self) {
        self.is_blocking.store(true, Ordering::Release);
    }

    /// Makes decoding fail until [`FaultyCodec::recover`], as if the codec could no longer be started.
    pub fn fail_to_start(&self) {
        self.cannot_start.store(true, Ordering::Release);
    }

    /// Makes decoding succeed again.
    pub fn recover(&self) {
        self.is_failing.store(false, Ordering::Release);
        self.is_blocking.store(false, Ordering::Release);
        self.cannot_start.store(false, Ordering::Release);
    }
}

impl Codec for FaultyCodec {}

impl ValueCodec for FaultyCodec {
    fn decode_values<'a>(
        &self,
        raw: &'a Packed,
        headers: &[&[Header]],
    ) -> Result<PackedAnswers<'a>, CodecFailure> {
        while self.is_blocking.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.cannot_start.load(Ordering::Acquire) {
            return Err(CodecFailure::Host(HostFailure::cannot_start("a test fault at the start")));
        }
        if self.is_failing.load(Ordering::Acquire) {
            return Err(CodecFailure::Host(HostFailure::new("a test fault")));
        }
        Json.decode_values(raw, headers)
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        Json.encode_values(values)
    }
}
