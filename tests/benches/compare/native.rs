//! Codecs of guests, compiled into this process behind the same trait as components. They show what the code
//! costs without the sandbox.

use std::sync::Arc;

use ktables::Packed;
use ktables::codec::{
    Answers, Codec, CodecFailure, Encoded, PackedAnswers, RejectKind, RejectReason, ValueCodec,
};
use ktables::log::Header;
use ktables_guest::CodecError;

/// A guest's codec that runs outside the sandbox.
#[derive(Debug)]
pub(crate) struct NativeCodec<T>(pub(crate) T);

impl<T: std::fmt::Debug + Send + Sync> Codec for NativeCodec<T> {}

impl<T: ktables_guest::ValueCodec + std::fmt::Debug + Send + Sync> ValueCodec for NativeCodec<T> {
    fn decode_values<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        let mut answers = PackedAnswers::new();
        for raw in raw.iter() {
            answers.push(self.0.decode(raw, &[]).as_deref().map_err(|error| reject_reason(error.clone())));
        }
        Ok(answers)
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        let encoded = |value: &&str| {
            let encoded = self.0.encode(value).map_err(reject_reason)?;
            Ok(Encoded { raw: encoded.raw, headers: Vec::new() })
        };
        Ok(values.iter().map(encoded).collect())
    }
}

/// Returns the codec with this name, compiled into this process.
pub(crate) fn codec(name: &str) -> Arc<dyn ValueCodec> {
    match name {
        "copy" => Arc::new(NativeCodec(mirror::Mirror::Copy)),
        "json" => Arc::new(NativeCodec(mirror::Mirror::Json)),
        "deb822" => Arc::new(NativeCodec(deb822::Deb822::default())),
        "service-record" => Arc::new(NativeCodec(service_record::ServiceRecord)),
        name => panic!("no native codec `{name}`"),
    }
}

fn reject_reason(error: CodecError) -> RejectReason {
    let (CodecError::Malformed(message)
    | CodecError::Invalid(message)
    | CodecError::Unsupported(message)
    | CodecError::Other(message)) = error;
    RejectReason::without_component(RejectKind::Other, message)
}
