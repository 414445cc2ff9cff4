//! A codec that fails or blocks until the test releases it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ktables::Packed;
use ktables::codec::{Answers, Codec, CodecFailure, Encoded, HostFailure, Json, PackedAnswers, ValueCodec};
use ktables::log::Header;

/// The JSON codec, except that decoding fails with an error of the host while the codec is held, and blocks
/// while it is stalled.
#[derive(Debug, Default)]
pub struct HeldCodec {
    is_held: AtomicBool,
    is_stalled: AtomicBool,
}

impl HeldCodec {
    /// Makes decoding fail.
    pub fn hold(&self) {
        self.is_held.store(true, Ordering::Release);
    }

    /// Makes decoding block.
    pub fn stall(&self) {
        self.is_stalled.store(true, Ordering::Release);
    }

    /// Makes decoding succeed again.
    pub fn release(&self) {
        self.is_held.store(false, Ordering::Release);
        self.is_stalled.store(false, Ordering::Release);
    }
}

impl Codec for HeldCodec {}

impl ValueCodec for HeldCodec {
    fn decode_values<'a>(
        &self,
        raw: &'a Packed,
        headers: &[&[Header]],
    ) -> Result<PackedAnswers<'a>, CodecFailure> {
        while self.is_stalled.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.is_held.load(Ordering::Acquire) {
            return Err(CodecFailure::Host(HostFailure { reason: "held".to_owned() }));
        }
        Json.decode_values(raw, headers)
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        Json.encode_values(values)
    }
}
