//! A rejected record with everything that is needed to reproduce its rejection elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::authors::bytes::{Base64, JsonHeader};
use crate::codec::{CodecFailure, HostFailure, RejectReason};
use crate::log::Record;
use crate::packed::Packed;
use crate::wasm::{Component, Limits, WasmError};

/// A part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CasePart {
    Key,
    Value,
}

/// A rejected record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    timestamp: Option<i64>,
    key: Option<Base64>,
    value: Option<Base64>,
    headers: Vec<JsonHeader>,
    /// The part that was rejected.
    part: CasePart,
    /// Why it was rejected.
    pub(crate) kind: String,
    pub(crate) message: String,
    /// The code of the trap, if the component trapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trap: Option<String>,
    /// The functions of the component that were running, the innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    backtrace: Vec<String>,
    component: CaseComponent,
    /// The configuration of the component.
    config: String,
    /// The limits of the component, as in a configuration file.
    pub(crate) limits: BTreeMap<String, String>,
}

/// The component that rejected a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CaseComponent {
    name: String,
    digest: String,
}

impl Case {
    /// Creates the case of a record that a component rejected. Returns `None` if no component did.
    pub(crate) fn new(
        topic: &str,
        record: &Record<'_>,
        part: CasePart,
        reason: &RejectReason,
        config: &str,
        limits: &Limits,
    ) -> Option<Self> {
        let component = reason.component.as_ref()?;
        let bytes = |part: Option<&[u8]>| part.map(|bytes| Base64(bytes.to_vec()));
        Some(Self {
            topic: topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: bytes(record.key),
            value: bytes(record.value),
            headers: record.headers.iter().map(JsonHeader::new).collect(),
            part,
            kind: reason.kind.name().to_owned(),
            message: reason.message.clone(),
            trap: reason.trap.as_ref().and_then(|trap| trap.code.clone()),
            backtrace: reason.trap.as_ref().map_or_else(Vec::new, |trap| trap.backtrace.clone()),
            component: CaseComponent { name: component.name.clone(), digest: component.digest.clone() },
            config: config.to_owned(),
            limits: describe_limits(limits),
        })
    }

    /// Decodes the rejected part with a component, as a table does. Returns the decoded text, or why it is rejected.
    ///
    /// # Errors
    ///
    /// If the component cannot be used, or the host fails.
    pub(crate) fn reproduce(&self, component: &Component) -> Result<Result<String, RejectReason>, WasmError> {
        let (codec, bytes) = match self.part {
            CasePart::Key => (None, &self.key),
            CasePart::Value => (Some(component.value_codec(&self.topic, &self.config)?), &self.value),
        };
        let raw: Packed = bytes.iter().map(|bytes| &bytes.0).collect();
        let decoded = match &codec {
            Some(codec) => {
                let headers: Vec<_> = self.headers.iter().map(JsonHeader::to_header).collect();
                let headers: &[&[_]] = if codec.wants_headers() { &[&headers] } else { &[] };
                codec.decode_values(&raw, headers).map(|answers| answers.into_one())
            }
            None => {
                let codec = component.key_codec(&self.topic, &self.config)?;
                codec.decode_keys(&raw).map(|answers| answers.into_one())
            }
        };
        match decoded {
            Ok(Ok(bytes)) => Ok(Ok(String::from_utf8_lossy(&bytes).into_owned())),
            Ok(Err(reason)) | Err(CodecFailure::Fault(reason)) => Ok(Err(reason)),
            Err(CodecFailure::Host(HostFailure { reason, .. })) => Err(WasmError::Engine { reason }),
        }
    }

    /// Whether a record was rejected for the reason of this case. Addresses in memory, which a stack has, may differ.
    pub(crate) fn is_same_reason(&self, kind: &str, message: &str) -> bool {
        self.kind == kind && without_addresses(&self.message) == without_addresses(message)
    }

    /// Whether a case has the part that was rejected.
    pub(crate) fn is_complete(&self) -> bool {
        match self.part {
            CasePart::Key => self.key.is_some(),
            CasePart::Value => self.value.is_some(),
        }
    }
}

/// Returns a text without its hexadecimal numbers.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "0x" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

/// Returns limits with the names and the notation of a configuration file.
fn describe_limits(limits: &Limits) -> BTreeMap<String, String> {
    let bytes = |bytes: usize| format!("{bytes}B");
    let time = |time: Duration| humantime::format_duration(time).to_string();
    [
        ("memory", bytes(limits.memory)),
        ("output", bytes(limits.output)),
        ("deadline", time(limits.deadline)),
        ("deadline_per_record", time(limits.deadline_per_record)),
        ("start_deadline", time(limits.start_deadline)),
        ("recycle_calls", limits.recycle_calls.to_string()),
        ("recycle_age", time(limits.recycle_age)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_do_not_matter() {
        assert_eq!(without_addresses("main.f({0x28e240, 0x2}) +0x1d"), "main.f({0x, 0x}) +0x");
        assert_eq!(without_addresses("no key \"a0\""), "no key \"a0\"");
    }
}
