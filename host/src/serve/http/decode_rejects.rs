//! Decodes rejected records again, with a codec of the configuration, to see which of them it would accept. Nothing is applied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Path;
use axum::http::Response;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::codec::workers::{self, Lane, Purpose};
use crate::codec::{
    CheckedCodecs, CodecFailure, Codecs, HostFailure, RejectKind, RejectReason, checked_text,
};
use crate::config::{CodecNames, ConfigError};
use crate::log::{Offset, Partition};
use crate::packed::Packed;
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::entries::respond_json;
use crate::serve::http::writing::audit;
use crate::serve::problem::Problem;
use crate::table::{RecordPart, RejectedRecord};

/// How many records are decoded by default, and at most: those that were rejected last.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// How many bytes the body may have, which names codecs.
const MAX_NAMES_BYTES: usize = 4 << 10;

/// What a codec answers for a rejected record.
#[derive(Debug, Serialize)]
struct Decoded {
    partition: Partition,
    offset: Offset,
    part: &'static str,
    outcome: Outcome,
    /// The decoded value, or the decoded key as a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    decoded: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Accepted,
    Rejected,
    /// Only the first 16 KiB of the rejected part were kept, or the record has a null key.
    NotDecodable,
    /// The time for the request was over.
    NotTried,
}

/// Decodes the records that were rejected last.
pub(super) async fn decode(
    call: Call,
    Path(table): Path<String>,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::ReadRaw, &table)?;
    let query = call.query(&["limit"])?;
    let limit = query.number("limit")?.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let body = call.read_body(body, MAX_NAMES_BYTES).await?;
    let names: CodecNames = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be {{\"value\": \"NAME\"}} with the name of a codec of the configuration, or the same for \
             `key`: {error}"
        ))
    })?;
    if names.key.is_none() && names.value.is_none() {
        return Err(Problem::bad_request("which codec? Name one as `key` or `value`"));
    }
    let (catalog, name) = (call.server.catalog.load_full(), table.name.clone());
    // Compiling a component blocks.
    let loaded = tokio::task::spawn_blocking(move || catalog.load_other_codecs(&name, &names)).await;
    // OK because the task is never cancelled: the error is a panic, which continues here.
    let codecs = loaded.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let codecs = Arc::new(codecs.map_err(|error| unusable(&error))?);
    let mut rejects = table.table.rejects();
    rejects.drain(..rejects.len().saturating_sub(limit));
    let decoded = decode_all(codecs, rejects, call.server.settings.request_timeout).await?;
    audit(&call, &table.name, &format!("decoded {} rejected records again", decoded.len()));
    let count = |outcome| decoded.iter().filter(|decoded| decoded.outcome == outcome).count();
    let (accepted, rejected) = (count(Outcome::Accepted), count(Outcome::Rejected));
    let answer = json!({ "accepted": accepted, "rejected": rejected, "records": decoded });
    Ok(respond_json(axum::http::HeaderMap::new(), answer.to_string()))
}

fn unusable(error: &ConfigError) -> Problem {
    Problem::bad_request(format!("the codec cannot be used: {error}"))
}

/// Decodes each record alone, so that one over which the codec faults does not affect the others, and
/// so that other work can run between two records.
async fn decode_all(
    codecs: Arc<Codecs>,
    rejects: Vec<RejectedRecord>,
    timeout: Duration,
) -> Result<Vec<Decoded>, Problem> {
    let lane = Lane::new(&codecs, Purpose::Read);
    let deadline = Instant::now() + timeout;
    let mut decoded = Vec::with_capacity(rejects.len());
    for reject in rejects {
        let answer = Decoded::new(&reject);
        // A record without a key is not for a codec.
        let is_kept = reject.raw.len() == reject.raw_len && reject.reason.kind != RejectKind::Keyless;
        decoded.push(if !is_kept {
            answer
        } else if Instant::now() >= deadline {
            Decoded { outcome: Outcome::NotTried, ..answer }
        } else {
            let codecs = codecs.clone();
            let reject = Arc::new(reject);
            let run = workers::run_codecs(&lane, move || decode_one(&codecs, &reject));
            let failed = |failure: HostFailure| {
                Problem::unavailable("codec-failed", "The codec cannot run", failure.to_string())
            };
            match tokio::time::timeout_at(deadline.into(), run).await {
                Ok(result) => answer.with_result(result.map_err(failed)?),
                Err(_) => Decoded { outcome: Outcome::NotTried, ..answer },
            }
        });
    }
    Ok(decoded)
}

/// Decodes the rejected part of a record: a key to a text, a value to JSON. Headers were not kept.
fn decode_one(
    codecs: &Codecs,
    reject: &RejectedRecord,
) -> Result<Result<Box<RawValue>, RejectReason>, HostFailure> {
    let raw = Packed::from_iter([&reject.raw[..]]);
    let codecs = CheckedCodecs(codecs);
    let answers = match reject.part {
        RecordPart::Key => codecs.decode_keys(&raw),
        _ => codecs.decode_values(&raw, &[&[]]),
    };
    let bytes = match answers {
        Ok(answers) => match answers.into_one() {
            Ok(bytes) => bytes,
            Err(reason) => return Ok(Err(reason)),
        },
        Err(CodecFailure::Fault(reason)) => return Ok(Err(reason)),
        Err(CodecFailure::Host(failure)) => return Err(failure),
    };
    let json = match reject.part {
        // OK because texts always serialize.
        RecordPart::Key => serde_json::to_string(checked_text(&bytes)).expect("serializes"),
        _ => checked_text(&bytes).to_owned(),
    };
    // OK because the value was checked, and a text always serializes.
    Ok(Ok(RawValue::from_string(json).expect("JSON")))
}

impl Decoded {
    /// The answer for a record that is not decoded.
    fn new(reject: &RejectedRecord) -> Self {
        let part = if reject.part == RecordPart::Key { "key" } else { "value" };
        let (partition, offset) = (reject.partition, reject.offset);
        Self {
            partition,
            offset,
            part,
            outcome: Outcome::NotDecodable,
            decoded: None,
            kind: None,
            message: None,
        }
    }

    fn with_result(self, result: Result<Box<RawValue>, RejectReason>) -> Self {
        match result {
            Ok(decoded) => Self { outcome: Outcome::Accepted, decoded: Some(decoded), ..self },
            Err(RejectReason { kind, message, .. }) => {
                Self { outcome: Outcome::Rejected, kind: Some(kind.name()), message: Some(message), ..self }
            }
        }
    }
}
