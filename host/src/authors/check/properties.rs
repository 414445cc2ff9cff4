//! The properties of a codec. Each function looks for a violation by some requests, and describes it.

use crate::authors::check::subject::{Subject, is_same};
use crate::authors::describe::{describe_answer, describe_outcome};
use crate::codec::{CodecFailure, HostFailure, RejectKind, json_equal};
use crate::wasm::{Answer, DirectCodec, Outcome, Request};

/// Returns how requests violate a property, if they do.
pub(super) type Property = fn(&Subject, &[Request]) -> Result<Option<String>, HostFailure>;

/// A codec never faults: neither does it trap, nor does it break a limit or the contract.
pub(super) fn find_fault(subject: &Subject, requests: &[Request]) -> Result<Option<String>, HostFailure> {
    for request in requests {
        let outcome = subject.call(request)?;
        if outcome.as_ref().is_err_and(|reason| reason.kind.is_fault()) {
            return Ok(Some(describe_outcome(&outcome)));
        }
    }
    Ok(None)
}

/// A key and its text, and a key and its parts, return to each other in both directions. A value that was decoded encodes
/// to bytes of the same value, unless the codec only decodes (`unsupported`).
pub(super) fn find_round_trip_failure(
    subject: &Subject,
    requests: &[Request],
) -> Result<Option<String>, HostFailure> {
    for request in requests {
        let Ok(answer) = subject.call(request)? else { continue };
        let described = describe_answer(&answer);
        let returns = |back: Request, function: &str, is_input: &dyn Fn(&Answer) -> bool| {
            let outcome = subject.call(&back)?;
            let is_same = outcome.as_ref().is_ok_and(is_input);
            let found = format!("but {function} of that returns {}", describe_outcome(&outcome));
            Ok::<_, HostFailure>((!is_same).then_some(found))
        };
        let found = match (request, answer) {
            (Request::DecodeValue { .. }, Answer::Text(text)) => find_value_change(subject, &text)?,
            (Request::DecodeKey(raw), Answer::Text(text)) => returns(
                Request::EncodeKey(text),
                "encode",
                &|back| matches!(back, Answer::Encoded(encoded) if encoded.raw == *raw),
            )?,
            (Request::EncodeKey(text), Answer::Encoded(encoded)) => returns(
                Request::DecodeKey(encoded.raw),
                "decode",
                &|back| matches!(back, Answer::Text(back) if back == text),
            )?,
            (Request::Split(key), Answer::Pair(Some(pair))) => returns(
                Request::Join(pair),
                "join",
                &|back| matches!(back, Answer::Text(back) if back == key),
            )?,
            (Request::Join(pair), Answer::Text(key)) => returns(
                Request::Split(key),
                "split",
                &|back| matches!(back, Answer::Pair(Some(back)) if back == pair),
            )?,
            _ => None,
        };
        if let Some(found) = found {
            return Ok(Some(format!("it returns {described}, {found}")));
        }
    }
    Ok(None)
}

/// Returns how a decoded value changes if it is encoded and decoded again.
fn find_value_change(subject: &Subject, text: &str) -> Result<Option<String>, HostFailure> {
    let outcome = subject.call(&Request::EncodeValue(text.to_owned()))?;
    let encoded = match &outcome {
        Err(reason) if reason.kind == RejectKind::Unsupported => return Ok(None),
        Ok(Answer::Encoded(encoded)) => encoded,
        _ => return Ok(Some(format!("but encode of that returns {}", describe_outcome(&outcome)))),
    };
    let request = Request::DecodeValue { raw: encoded.raw.clone(), headers: encoded.headers.clone() };
    let decoded = subject.call(&request)?;
    let is_same = matches!(&decoded, Ok(Answer::Text(decoded)) if json_equal(decoded, text));
    let describe = || {
        format!(
            "but encode of that returns {}, and decode of those returns {}",
            describe_outcome(&outcome),
            describe_outcome(&decoded)
        )
    };
    Ok((!is_same).then(describe))
}

/// An answer does not depend on earlier calls: an instance that has answered other requests answers as a new one does.
pub(super) fn find_state(subject: &Subject, requests: &[Request]) -> Result<Option<String>, HostFailure> {
    subject.codec.restart();
    let mut answers = Vec::new();
    for request in requests {
        answers.push(subject.call(request)?);
    }
    for (request, reused) in requests.iter().zip(answers) {
        subject.fresh.restart();
        let fresh = subject.fresh.call(request)?;
        if !is_same(&reused, &fresh) {
            return Ok(Some(format!(
                "after other calls, {} returns {}, but on a new instance {}",
                request.describe(),
                describe_outcome(&reused),
                describe_outcome(&fresh)
            )));
        }
    }
    Ok(None)
}

/// As [`find_state`], but repeats the calls in the reverse order on the same instance.
pub(super) fn find_order_dependence(
    subject: &Subject,
    requests: &[Request],
) -> Result<Option<String>, HostFailure> {
    subject.codec.restart();
    let first: Vec<Outcome> =
        requests.iter().map(|request| subject.call(request)).collect::<Result<_, _>>()?;
    for (request, first) in requests.iter().zip(&first).rev() {
        let again = subject.call(request)?;
        if !is_same(first, &again) {
            return Ok(Some(format!(
                "{} returns {}, and later {}",
                request.describe(),
                describe_outcome(first),
                describe_outcome(&again)
            )));
        }
    }
    Ok(None)
}

/// A batch has the answers of its items.
pub(super) fn find_batch_difference(
    subject: &Subject,
    requests: &[Request],
) -> Result<Option<String>, HostFailure> {
    let Some([single, batch]) = &subject.forms else { return Ok(None) };
    let together = match call_batch(batch, requests)? {
        Ok(together) => together,
        Err(fault) => {
            let found =
                format!("a batch of them returns {}, each alone does not", describe_outcome(&Err(fault)));
            return Ok(Some(found));
        }
    };
    for (index, (request, together)) in requests.iter().zip(together).enumerate() {
        let alone = single.call(request)?;
        if !is_same(&alone, &together) {
            return Ok(Some(format!(
                "for item {index}, the batch form returns {}, and alone it is {}",
                describe_outcome(&together),
                describe_outcome(&alone)
            )));
        }
    }
    Ok(None)
}

/// Calls a codec with many items, as a table does: if the batch exceeds a limit, with halves of it.
fn call_batch(
    codec: &DirectCodec,
    requests: &[Request],
) -> Result<Result<Vec<Outcome>, crate::codec::RejectReason>, HostFailure> {
    match codec.call_all(requests) {
        Ok(outcomes) => Ok(Ok(outcomes)),
        Err(CodecFailure::Host(failure)) => Err(failure),
        Err(CodecFailure::Fault(fault)) => {
            let is_limit =
                matches!(fault.kind, RejectKind::Deadline | RejectKind::Memory | RejectKind::Output);
            if !is_limit || requests.len() < 2 {
                return Ok(Err(fault));
            }
            let (left, right) = requests.split_at(requests.len() / 2);
            let mut outcomes = match call_batch(codec, left)? {
                Ok(outcomes) => outcomes,
                Err(fault) => return Ok(Err(fault)),
            };
            Ok(call_batch(codec, right)?.map(|rest| {
                outcomes.extend(rest);
                outcomes
            }))
        }
    }
}
