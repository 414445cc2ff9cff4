//! Checks that an instance does not need more and more memory.

use std::collections::BTreeMap;

use crate::authors::check::result::TestResult;
use crate::authors::check::subject::{BATCH_BYTES, Subject, Tried};
use crate::codec::{CodecFailure, HostFailure, RejectKind};
use crate::wasm::{Answer, DirectCodec, Request};

/// How much the memory of an instance may grow for each call, in bytes, beyond the bytes that the call returned.
const MAX_GROWTH: usize = 256;

/// How many records are measured together. Memory grows in steps of 64 KiB or more.
const WINDOW: usize = 4096;

/// How many bytes are measured together, at most: large records need not be repeated as often.
const WINDOW_BYTES: usize = 4 << 20;

/// How many windows are measured. A garbage collector frees memory late, and a growing list doubles seldom, so the average
/// of the last ones counts.
const WINDOWS: usize = 12;
const COUNTED: usize = 8;

/// How many records are sent in one call.
const BATCH: usize = 256;

/// A group of requests that probably take the same way through the codec: the function, and the kind of outcome.
type Group = (&'static str, &'static str);

/// What one window of calls showed.
enum Growth {
    /// The bytes of memory, and of answers, for each record.
    PerRecord { grown: usize, returned: usize },
    /// The instance exceeded its memory limit.
    ExceededLimit(String),
    /// A call faulted, so there is nothing to measure.
    Unknown,
}

/// Calls the codec many times with the requests of each group.
pub(super) fn check_growth(subject: &Subject, tried: &[Tried]) -> Result<TestResult, HostFailure> {
    let limit = subject.memory_limit();
    let groups = group(tried);
    let records = groups.values().map(Vec::len).sum();
    let result = TestResult::passed(subject.kind, "memory-growth", records);
    let mut largest = 0;
    for requests in groups.values() {
        let codec = subject.start_codec()?.with_one_instance();
        let smallest: Vec<Request> =
            requests.iter().min_by_key(|request| request.input_len()).cloned().into_iter().collect();
        match average_growth(&codec, requests)? {
            Growth::Unknown => {}
            Growth::ExceededLimit(message) => {
                let found = format!("called again and again with such input, it {message}");
                return Ok(result.failed(&smallest, found));
            }
            Growth::PerRecord { grown, returned } => {
                largest = largest.max(grown);
                if grown > MAX_GROWTH + returned {
                    let found = format!(
                        "its memory grows by {grown} bytes with each record like this one, which returns {returned} \
                         bytes, so it reaches limits.memory ({limit} bytes) after about {} records",
                        limit / grown
                    );
                    return Ok(result.failed(&smallest, found));
                }
            }
        }
    }
    Ok(match largest {
        0 => result,
        _ => result.with_note(format!(
            "its memory grows by up to {largest} bytes with each record, so an instance is replaced after about {} \
             records",
            limit / largest / 2
        )),
    })
}

/// Groups requests by what the codec makes of them.
fn group(tried: &[Tried]) -> BTreeMap<Group, Vec<Request>> {
    let mut groups: BTreeMap<Group, Vec<Request>> = BTreeMap::new();
    for (request, outcome) in tried {
        let outcome = match outcome {
            Ok(Answer::Pair(None)) => "foreign",
            Ok(_) => "accepted",
            Err(reason) => reason.kind.name(),
        };
        groups.entry((request.function(), outcome)).or_default().push(request.clone());
    }
    groups
}

/// Returns the average growth of the last windows of calls.
fn average_growth(codec: &DirectCodec, requests: &[Request]) -> Result<Growth, HostFailure> {
    let mut requests = requests.iter().cycle();
    let (mut grown, mut returned) = (Vec::new(), 0);
    for _ in 0..WINDOWS {
        match measure(codec, &mut requests)? {
            Growth::PerRecord { grown: bytes, returned: answers } => {
                grown.push(bytes);
                returned = answers;
            }
            other => return Ok(other),
        }
        let is_stable = grown.len() > WINDOWS - COUNTED && grown[1..].iter().all(|&bytes| bytes == 0);
        if is_stable {
            break;
        }
    }
    let counted = &grown[grown.len().saturating_sub(COUNTED)..];
    Ok(Growth::PerRecord { grown: counted.iter().sum::<usize>() / counted.len().max(1), returned })
}

/// Measures one window of calls.
fn measure<'a>(
    codec: &DirectCodec,
    requests: &mut impl Iterator<Item = &'a Request>,
) -> Result<Growth, HostFailure> {
    let (mut records, mut sent, mut returned) = (0, 0, 0);
    let before = codec.memory_used();
    while records < WINDOW && sent < WINDOW_BYTES {
        let mut bytes = 0;
        let batch = requests.by_ref().take(BATCH).take_while(|request| {
            bytes += request.input_len();
            bytes <= BATCH_BYTES
        });
        let mut batch: Vec<Request> = batch.cloned().collect();
        if batch.is_empty() {
            // A single large one.
            batch.extend(requests.next().cloned());
        }
        records += batch.len();
        sent += batch.iter().map(Request::input_len).sum::<usize>();
        match codec.call_all(&batch) {
            Ok(outcomes) => returned += outcomes.iter().flatten().map(Answer::byte_len).sum::<usize>(),
            Err(CodecFailure::Host(failure)) => return Err(failure),
            Err(CodecFailure::Fault(fault)) if fault.kind == RejectKind::Memory => {
                return Ok(Growth::ExceededLimit(fault.message));
            }
            // Another test reports it.
            Err(CodecFailure::Fault(_)) => return Ok(Growth::Unknown),
        }
    }
    Ok(match (before, codec.memory_used()) {
        (Some(before), Some(after)) => {
            Growth::PerRecord { grown: after.saturating_sub(before) / records, returned: returned / records }
        }
        _ => Growth::Unknown,
    })
}
