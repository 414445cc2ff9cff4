//! Calls of a component's codec for the tools of its author. Unlike the codec of a table, it checks each answer, but
//! nothing that spans several calls: whether a key round-trips, for example.

use std::mem::discriminant;

use crate::codec::{CodecFailure, Encoded, GroupKey, HostFailure, RejectReason, ValueCodec};
use crate::log::Header;
use crate::packed::Packed;
use crate::wasm::bindings::v0_1::exports::ktables::codec::plugin::Role;
use crate::wasm::codecs::ComponentCodec;
use crate::wasm::component::Component;
use crate::wasm::error::WasmError;
use crate::wasm::instance::Instance;
use crate::wasm::interfaces::Interface;
use crate::wasm::limits::Limits;

/// What a codec converts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CodecKind {
    /// The values of records.
    Value,
    /// The keys of records.
    Key,
    /// Keys, into group and member.
    Group,
}

impl CodecKind {
    pub(crate) const ALL: [Self; 3] = [Self::Value, Self::Key, Self::Group];

    fn role(self) -> Role {
        match self {
            Self::Value => Role::Value,
            Self::Key => Role::Key,
            Self::Group => Role::Group,
        }
    }

    fn interface(self, form: Form) -> Interface {
        match (self, form) {
            (Self::Value, Form::Simple) => Interface::ValueCodec,
            (Self::Value, Form::Batch) => Interface::ValueCodecBatch,
            (Self::Key, Form::Simple) => Interface::KeyCodec,
            (Self::Key, Form::Batch) => Interface::KeyCodecBatch,
            (Self::Group, Form::Simple) => Interface::GroupScheme,
            (Self::Group, Form::Batch) => Interface::GroupSchemeBatch,
        }
    }
}

/// A form of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One item per call.
    Simple,
    /// Many items per call.
    Batch,
}

/// A question to a codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    DecodeValue { raw: Vec<u8>, headers: Vec<Header> },
    EncodeValue(String),
    DecodeKey(Vec<u8>),
    EncodeKey(String),
    Split(String),
    Join(GroupKey),
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A decoded value (JSON text) or key, or a joined key.
    Text(String),
    /// An encoded value, or an encoded key without headers.
    Encoded(Encoded),
    /// A split key; `None` if it is foreign.
    Pair(Option<GroupKey>),
}

impl Answer {
    /// Returns the number of its bytes, without headers.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Encoded(encoded) => encoded.raw.len(),
            Self::Pair(pair) => pair.as_ref().map_or(0, |pair| pair.group.len() + pair.member.len()),
        }
    }

    /// Returns the request whose answer should have the input of the one with this answer.
    pub(crate) fn reversed(&self, kind: CodecKind) -> Option<Request> {
        match self {
            Self::Text(text) => Some(match kind {
                CodecKind::Value => Request::EncodeValue(text.clone()),
                CodecKind::Key => Request::EncodeKey(text.clone()),
                CodecKind::Group => Request::Split(text.clone()),
            }),
            Self::Pair(pair) => pair.clone().map(Request::Join),
            Self::Encoded(_) => None,
        }
    }
}

/// What a codec makes of a request.
pub(crate) type Outcome = Result<Answer, RejectReason>;

/// A component's codec of one kind. It calls one instance until that faults, or until [`DirectCodec::restart`].
#[derive(Debug)]
pub(crate) struct DirectCodec {
    codec: ComponentCodec,
}

impl Component {
    /// Returns the limits of each instance.
    pub(crate) fn limits(&self) -> &Limits {
        &self.template.limits
    }

    /// Returns the kinds of codec that the component exports.
    pub(crate) fn codec_kinds(&self) -> Vec<CodecKind> {
        CodecKind::ALL.into_iter().filter(|&kind| !self.codec_forms(kind).is_empty()).collect()
    }

    /// Returns the forms in which the component exports a kind of codec.
    pub(crate) fn codec_forms(&self, kind: CodecKind) -> Vec<Form> {
        let exports = |form: &Form| self.interfaces().contains(&kind.interface(*form));
        [Form::Simple, Form::Batch].into_iter().filter(exports).collect()
    }

    /// Starts a codec of this kind, which uses one form of its interface, or else the form that tables use.
    ///
    /// # Errors
    ///
    /// If the component does not export it, refuses the configuration, or fails.
    pub(crate) fn direct_codec(
        &self,
        kind: CodecKind,
        form: Option<Form>,
        topic: &str,
        config: &str,
    ) -> Result<DirectCodec, WasmError> {
        let mut component = self.clone();
        let unused = form.map(|form| match form {
            Form::Simple => kind.interface(Form::Batch),
            Form::Batch => kind.interface(Form::Simple),
        });
        component.template.interfaces.retain(|&interface| Some(interface) != unused);
        let wanted = [Form::Simple, Form::Batch].map(|form| kind.interface(form));
        component.require(kind.interface(Form::Simple).name(), &wanted)?;
        Ok(DirectCodec { codec: component.create_codec(topic, kind.role(), config)? })
    }
}

impl DirectCodec {
    /// Asks the codec for many items, those of the same function in one call.
    ///
    /// # Errors
    ///
    /// [`CodecFailure`] if a call failed, so that there is no answer for any of its items.
    pub(crate) fn call_all(&self, requests: &[Request]) -> Result<Vec<Outcome>, CodecFailure> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for calls in requests.chunk_by(|a, b| discriminant(a) == discriminant(b)) {
            outcomes.extend(self.call_function(calls)?);
        }
        Ok(outcomes)
    }

    /// Asks the codec for one item. A fault is an outcome.
    ///
    /// # Errors
    ///
    /// If the host fails.
    pub(crate) fn call(&self, request: &Request) -> Result<Outcome, HostFailure> {
        match self.call_all(std::slice::from_ref(request)) {
            // OK because there is one answer for each request.
            Ok(mut outcomes) => Ok(outcomes.pop().expect("one answer")),
            Err(CodecFailure::Fault(reason)) => Ok(Err(reason)),
            Err(CodecFailure::Host(failure)) => Err(failure),
        }
    }

    /// Decodes values or keys in one call, as a table does, and drops the answers. `headers` has a list for each value, or
    /// is empty.
    ///
    /// # Errors
    ///
    /// As [`DirectCodec::call_all`].
    pub(crate) fn decode(
        &self,
        kind: CodecKind,
        raw: &Packed,
        headers: &[&[Header]],
    ) -> Result<(), CodecFailure> {
        let decode = |instance: &mut Instance| match kind {
            CodecKind::Value => instance.decode_values(raw, headers),
            CodecKind::Key | CodecKind::Group => instance.decode_keys(raw),
        };
        self.codec.call(raw, decode).map(drop)
    }

    /// Never replaces the instance because its memory has grown, so that the growth can be measured.
    pub(crate) fn with_one_instance(mut self) -> Self {
        self.codec.recycles = false;
        self
    }

    /// Drops the instance. The next call starts another one.
    pub(crate) fn restart(&self) {
        self.codec.drop_idle();
    }

    /// Returns the bytes of the memories and tables of the instance. There is none after a fault.
    pub(crate) fn memory_used(&self) -> Option<usize> {
        self.codec.memory_used()
    }

    /// Calls one function of the codec for all these requests, which are for the same function.
    fn call_function(&self, requests: &[Request]) -> Result<Vec<Outcome>, CodecFailure> {
        let (mut raw, mut all_headers) = (Packed::new(), Vec::new());
        let (mut texts, mut pairs) = (Vec::new(), Vec::new());
        for request in requests {
            match request {
                Request::DecodeValue { raw: value, headers } => {
                    raw.push(value);
                    all_headers.push(headers.as_slice());
                }
                Request::DecodeKey(key) => raw.push(key),
                Request::EncodeValue(text) | Request::EncodeKey(text) | Request::Split(text) => {
                    texts.push(text.as_str())
                }
                Request::Join(GroupKey { group, member }) => pairs.push((&**group, &**member)),
            }
        }
        // OK because answers that decode were checked to be UTF-8.
        let text = |bytes: &[u8]| Answer::Text(String::from_utf8_lossy(bytes).into_owned());
        let encoded = |raw: &[u8]| Answer::Encoded(Encoded { raw: raw.to_vec(), headers: Vec::new() });
        let owned = |answer: Result<&[u8], &RejectReason>, own: &dyn Fn(&[u8]) -> Answer| {
            answer.map(own).map_err(Clone::clone)
        };
        match requests.first() {
            None => Ok(Vec::new()),
            Some(Request::DecodeValue { .. }) => {
                let headers = if self.wants_headers() { &all_headers[..] } else { &[] };
                let answers = self.codec.call(&raw, |instance| instance.decode_values(&raw, headers))?;
                Ok(answers.iter().map(|answer| owned(answer, &text)).collect())
            }
            Some(Request::DecodeKey(_)) => {
                let answers = self.codec.call(&raw, |instance| instance.decode_keys(&raw))?;
                Ok(answers.iter().map(|answer| owned(answer, &text)).collect())
            }
            Some(Request::EncodeValue(_)) => {
                let answers = self.codec.call(&texts[..], |instance| instance.encode_values(&texts))?;
                Ok(answers.into_iter().map(|answer| answer.map(Answer::Encoded)).collect())
            }
            Some(Request::EncodeKey(_)) => {
                let answers = self.codec.call(&texts[..], |instance| instance.encode_keys(&texts))?;
                Ok(answers.iter().map(|answer| owned(answer, &encoded)).collect())
            }
            Some(Request::Split(_)) => {
                let answers = self.codec.call(&texts[..], |instance| instance.split(&texts))?;
                Ok(answers.into_iter().map(|answer| answer.map(Answer::Pair)).collect())
            }
            Some(Request::Join(_)) => {
                let answers = self.codec.call(&pairs[..], |instance| instance.join(&pairs))?;
                Ok(answers.into_iter().map(|answer| answer.map(|key| Answer::Text(key.into()))).collect())
            }
        }
    }

    /// Whether the codec wants the headers of records.
    pub(crate) fn wants_headers(&self) -> bool {
        ValueCodec::wants_headers(&self.codec)
    }
}
