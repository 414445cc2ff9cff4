//! A codec that waits for the test.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ktables::Packed;
use ktables::codec::{Answers, Codec, CodecFailure, Encoded, HostFailure, Json, PackedAnswers, ValueCodec};
use ktables::log::Header;

/// JSON that the host cannot decode while somebody holds it, or that it decodes for as long
/// as somebody stalls it.
#[derive(Debug, Default)]
pub struct Held {
    is_held: AtomicBool,
    is_stalled: AtomicBool,
}

impl Held {
    /// From now on, decoding fails.
    pub fn hold(&self) {
        self.is_held.store(true, Ordering::Release);
    }

    /// From now on, decoding does not come to an end.
    pub fn stall(&self) {
        self.is_stalled.store(true, Ordering::Release);
    }

    /// No more of either.
    pub fn release(&self) {
        self.is_held.store(false, Ordering::Release);
        self.is_stalled.store(false, Ordering::Release);
    }
}

impl Codec for Held {}

impl ValueCodec for Held {
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
