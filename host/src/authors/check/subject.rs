//! The codec that is checked.

use crate::codec::{HostFailure, RejectKind};
use crate::wasm::{CodecKind, Component, DirectCodec, Form, Outcome, Request, WasmError};

/// A component's codec of one kind, with an instance for each way of calling it.
pub(super) struct Subject {
    component: Component,
    topic: String,
    config: String,
    pub(super) kind: CodecKind,
    /// The form that tables use.
    pub(super) codec: DirectCodec,
    /// An instance that is restarted again and again.
    pub(super) fresh: DirectCodec,
    /// A codec that is called with one item, and one that is called with many, if the component exports a form for that.
    pub(super) forms: Option<[DirectCodec; 2]>,
}

impl Subject {
    pub(super) fn start(
        component: &Component,
        kind: CodecKind,
        topic: &str,
        config: &str,
    ) -> Result<Self, WasmError> {
        let start = |form| component.direct_codec(kind, form, topic, config);
        let forms = component.codec_forms(kind);
        let single = *forms.first().unwrap_or(&Form::Batch);
        let forms = match forms.contains(&Form::Batch) {
            true => Some([start(Some(single))?, start(Some(Form::Batch))?]),
            false => None,
        };
        Ok(Self {
            component: component.clone(),
            topic: topic.to_owned(),
            config: config.to_owned(),
            kind,
            codec: start(None)?.with_one_instance(),
            fresh: start(None)?,
            forms,
        })
    }

    /// Starts another codec, as tables use it.
    pub(super) fn start_codec(&self) -> Result<DirectCodec, HostFailure> {
        let started = self.component.direct_codec(self.kind, None, &self.topic, &self.config);
        started.map_err(|error| HostFailure::new(error.to_string()))
    }

    /// Returns the bytes that an instance may use.
    pub(super) fn memory_limit(&self) -> usize {
        self.component.limits().memory
    }

    /// Asks the codec. Asks again if it misses its deadline: the machine may have been busy.
    pub(super) fn call(&self, request: &Request) -> Result<Outcome, HostFailure> {
        match self.codec.call(request)? {
            Err(reason) if reason.kind == RejectKind::Deadline => self.codec.call(request),
            outcome => Ok(outcome),
        }
    }
}

/// A request, and what the codec made of it.
pub(super) type Tried = (Request, Outcome);

/// How many bytes of requests are sent in one call, as a table does.
pub(super) const BATCH_BYTES: usize = 128 << 10;

/// Whether two outcomes are the same.
pub(super) fn is_same(left: &Outcome, right: &Outcome) -> bool {
    match (left, right) {
        (Ok(left), Ok(right)) => left == right,
        // The text of a fault may have an address or a time.
        (Err(left), Err(right)) => {
            left.kind == right.kind && (left.kind.is_fault() || left.message == right.message)
        }
        _ => false,
    }
}
