//! Checks a component as its author would want it checked before production: each test looks for requests that show a
//! fault, and shrinks the first ones that it finds.

mod generate;
mod growth;
mod properties;
mod result;
mod shrink;
mod subject;

use crate::authors::describe::describe_outcome;
use crate::codec::HostFailure;
use crate::wasm::{Answer, CodecKind, Component, Request, WasmError};
use generate::Generator;
use growth::check_growth;
use properties::{
    Property, find_batch_difference, find_fault, find_order_dependence, find_round_trip_failure, find_state,
};
use shrink::shrink;
use subject::{BATCH_BYTES, Subject, Tried, is_same};

pub(crate) use result::TestResult;

/// How many requests take part in the test that starts an instance for each of them.
const MAX_FRESH: usize = 400;

/// How many items one call has: one more than the largest batch of a table.
const BATCH: usize = 1025;

/// After this many faults, no more requests are tried.
const MAX_FAULTS: usize = 20;

/// How many bytes all samples may have.
const MAX_SAMPLE_BYTES: usize = 64 << 20;

/// What is found if no input was accepted.
const NOT_PROVEN: &str =
    "not proven: the codec accepts none of the samples; give it some of its format with --samples";

/// What to check.
pub(crate) struct CheckOptions {
    pub(crate) topic: String,
    pub(crate) config: String,
    /// How many random inputs each function receives.
    pub(crate) fuzz: usize,
    /// What the author gave, of all kinds.
    pub(crate) samples: Vec<(CodecKind, Request)>,
}

/// Runs all tests of all kinds of codec that a component exports.
///
/// # Errors
///
/// If the component refuses its configuration, or the host fails.
pub(crate) fn check(component: &Component, options: &CheckOptions) -> Result<Vec<TestResult>, WasmError> {
    let failed = |failure: HostFailure| WasmError::Engine { reason: failure.reason };
    let (mut results, mut keys) = (Vec::new(), Vec::new());
    for kind in component.codec_kinds() {
        let subject = Subject::start(component, kind, &options.topic, &options.config)?;
        let mut samples = own_samples(kind, options);
        match kind {
            CodecKind::Value => {}
            CodecKind::Key => keys = decode_keys(&subject, &samples).map_err(failed)?,
            // The group scheme receives the keys that the component decodes.
            CodecKind::Group => samples.append(&mut keys),
        }
        results.extend(check_kind(&subject, samples, options.fuzz).map_err(failed)?);
    }
    Ok(results)
}

/// Returns requests to split the keys among these samples.
fn decode_keys(subject: &Subject, samples: &[Request]) -> Result<Vec<Request>, HostFailure> {
    let mut keys = Vec::new();
    for sample in samples.iter().filter(|sample| sample.is_decode()) {
        if let Ok(Answer::Text(key)) = subject.call(sample)? {
            keys.push(Request::Split(key));
        }
    }
    Ok(keys)
}

fn check_kind(subject: &Subject, samples: Vec<Request>, fuzz: usize) -> Result<Vec<TestResult>, HostFailure> {
    let kind = subject.kind;
    let mut generator = Generator::new(kind, subject.codec.wants_headers(), &samples);
    let wanted = fuzz.max(samples.len());
    let mut tried = try_all(subject, samples)?;
    let proof = check_proof(kind, &tried);
    tried.extend(try_all(subject, generator.edge_cases())?);
    tried.extend(try_all(subject, generator.random(fuzz))?);
    // What it decodes, it should encode.
    let back = tried.iter().filter(|(request, _)| request.is_decode());
    let back = back.filter_map(|(_, outcome)| outcome.as_ref().ok()?.reversed(kind));
    let back: Vec<Request> = back.take(wanted).collect();
    let damaged = generator.damaged(&back, fuzz / 10);
    tried.extend(try_all(subject, back)?);
    tried.extend(try_all(subject, damaged)?);
    let proof = match (proof, tried.iter().any(is_accepted)) {
        (Some(proof), _) => proof,
        (None, true) => TestResult::passed(kind, "accepted-samples", tried.len()),
        (None, false) => {
            TestResult::passed(kind, "accepted-samples", tried.len()).failed(&[], NOT_PROVEN.to_owned())
        }
    };
    let faults = check_faults(subject, &tried)?;
    tried.retain(|(_, outcome)| !outcome.as_ref().is_err_and(|reason| reason.kind.is_fault()));
    let accepted = tried.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(request, _)| request.clone());
    let accepted: Vec<Request> = accepted.collect();
    let round_trip = run_test(subject, "round-trip", accepted.chunks(1), find_round_trip_failure)?;
    generator.shuffle(&mut tried);
    let mut results = vec![proof, faults, round_trip, check_independence(subject, &tried)?];
    if subject.forms.is_some() {
        let mut requests: Vec<Request> = tried.iter().map(|(request, _)| request.clone()).collect();
        requests.sort_by_key(Request::function);
        let batches = batches(&requests).into_iter();
        results.push(run_test(subject, "batch-form", batches, find_batch_difference)?);
    }
    results.push(check_growth(subject, &tried)?);
    Ok(results)
}

/// Returns the author's samples of a kind, within a bound.
fn own_samples(kind: CodecKind, options: &CheckOptions) -> Vec<Request> {
    let mut left = MAX_SAMPLE_BYTES;
    let of_kind = options.samples.iter().filter(|(sample, _)| *sample == kind);
    let fits = of_kind.map_while(|(_, request)| {
        left = left.checked_sub(request.input_len())?;
        Some(request.clone())
    });
    fits.collect()
}

/// Asks the codec for each of the requests, until it has faulted too often.
fn try_all(subject: &Subject, requests: Vec<Request>) -> Result<Vec<Tried>, HostFailure> {
    let (mut tried, mut faults) = (Vec::with_capacity(requests.len()), 0);
    for request in requests {
        let outcome = subject.call(&request)?;
        faults += usize::from(outcome.as_ref().is_err_and(|reason| reason.kind.is_fault()));
        tried.push((request, outcome));
        if faults >= MAX_FAULTS {
            break;
        }
    }
    Ok(tried)
}

/// Whether the codec decoded something. A foreign key proves nothing.
fn is_accepted((request, outcome): &Tried) -> bool {
    request.is_decode() && matches!(outcome, Ok(answer) if *answer != Answer::Pair(None))
}

/// Returns whether the codec accepts one of the author's samples; `None` if there are none.
fn check_proof(kind: CodecKind, samples: &[Tried]) -> Option<TestResult> {
    let own: Vec<&Tried> = samples.iter().filter(|(request, _)| request.is_decode()).collect();
    let result = TestResult::passed(kind, "accepted-samples", own.len());
    match own.iter().any(|tried| is_accepted(tried)) {
        _ if own.is_empty() => None,
        true => Some(result),
        false => Some(result.failed(&[], NOT_PROVEN.to_owned())),
    }
}

/// Reports the first fault, as small as it can be reproduced.
fn check_faults(subject: &Subject, tried: &[Tried]) -> Result<TestResult, HostFailure> {
    let result = TestResult::passed(subject.kind, "no-faults", tried.len());
    let is_fault = |(_, outcome): &&Tried| outcome.as_ref().is_err_and(|reason| reason.kind.is_fault());
    let Some((request, outcome)) = tried.iter().find(is_fault) else { return Ok(result) };
    let first = describe_outcome(outcome);
    let (smallest, found) = shrink(subject, find_fault, vec![request.clone()], first)?;
    Ok(result.failed(&smallest, found))
}

/// Checks that answers do not depend on earlier calls: all calls again, in the reverse order, on the same instance; and a
/// few on new instances.
fn check_independence(subject: &Subject, tried: &[Tried]) -> Result<TestResult, HostFailure> {
    let test = "independent-calls";
    let result = TestResult::passed(subject.kind, test, tried.len());
    let requests: Vec<Request> = tried.iter().map(|(request, _)| request.clone()).collect();
    for (index, (request, earlier)) in tried.iter().enumerate().rev() {
        let again = subject.call(request)?;
        if is_same(earlier, &again) {
            continue;
        }
        let first = format!(
            "{} returns {}, and later {}",
            request.describe(),
            describe_outcome(earlier),
            describe_outcome(&again)
        );
        // Calls that differ when they are repeated at once need no others.
        let alone = vec![request.clone(); 2];
        let needed = match find_order_dependence(subject, &alone)? {
            Some(_) => alone,
            None => requests[index..].iter().chain(&requests[..index]).cloned().collect(),
        };
        let (smallest, found) = shrink(subject, find_order_dependence, needed, first)?;
        return Ok(result.failed(&smallest, found));
    }
    let step = requests.len().div_ceil(MAX_FRESH).max(1);
    let few: Vec<Request> = requests.into_iter().step_by(step).collect();
    run_test(subject, test, std::iter::once(&few[..]), find_state)
}

/// Cuts requests into batches of the same function.
fn batches(requests: &[Request]) -> Vec<&[Request]> {
    let mut batches = Vec::new();
    for same_function in requests.chunk_by(|a, b| a.function() == b.function()) {
        let mut rest = same_function;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(BATCH).take_while(|request| {
                bytes += request.input_len();
                bytes <= BATCH_BYTES
            });
            let (batch, others) = rest.split_at(fits.count().max(1));
            batches.push(batch);
            rest = others;
        }
    }
    batches
}

/// Looks for requests that violate a property, and shrinks the first ones that it finds.
fn run_test<'a>(
    subject: &Subject,
    test: &'static str,
    batches: impl Iterator<Item = &'a [Request]>,
    property: Property,
) -> Result<TestResult, HostFailure> {
    let mut checked = 0;
    for requests in batches {
        checked += requests.len();
        if let Some(first) = property(subject, requests)? {
            let (smallest, found) = shrink(subject, property, requests.to_vec(), first)?;
            return Ok(TestResult::passed(subject.kind, test, checked).failed(&smallest, found));
        }
    }
    Ok(TestResult::passed(subject.kind, test, checked))
}
