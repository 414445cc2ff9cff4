//! Rejected records.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::table::{RecordPart, RejectedRecord};
use crate::wire::component::ComponentJson;

/// A rejected record.
#[derive(Debug, Serialize)]
pub(crate) struct RejectJson<'a> {
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    kind: &'static str,
    message: &'a str,
    component: Option<ComponentJson<'a>>,
    key: Option<&'a str>,
    part: &'static str,
    /// The first 16 KiB of the rejected part, as base64.
    raw: String,
    /// The length of the whole rejected part, in bytes.
    raw_len: usize,
}

impl<'a> RejectJson<'a> {
    pub(crate) fn new(reject: &'a RejectedRecord) -> Self {
        let component = reject.reason.component.as_ref();
        Self {
            partition: reject.partition,
            offset: reject.offset,
            timestamp: reject.timestamp,
            kind: reject.reason.kind.name(),
            message: &reject.reason.message,
            component: component.map(|id| ComponentJson::new(id)),
            key: reject.key.as_deref(),
            part: match reject.part {
                RecordPart::Key => "key",
                RecordPart::Value => "value",
            },
            raw: BASE64.encode(&reject.raw),
            raw_len: reject.raw_len,
        }
    }
}
