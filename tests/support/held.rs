//! A codec that waits for the test.

use std::sync::atomic::{AtomicBool, Ordering};

use ktables::Packed;
use ktables::codec::{Answers, Encoded, HostFailure, Json, PackedAnswers, ValueCodec};
use ktables::log::Header;

/// JSON that the host cannot decode while somebody holds it.
#[derive(Debug, Default)]
pub struct Held(AtomicBool);

impl Held {
    /// From now on.
    pub fn hold(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// No more.
    pub fn release(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl ValueCodec for Held {
    fn decode<'a>(&self, raw: &'a Packed, headers: &[&[Header]]) -> Result<PackedAnswers<'a>, HostFailure> {
        if self.0.load(Ordering::Acquire) {
            return Err(HostFailure { reason: "held".to_owned() });
        }
        ValueCodec::decode(&Json, raw, headers)
    }

    fn encode(&self, values: &[&str]) -> Answers<Encoded> {
        ValueCodec::encode(&Json, values)
    }
}
