//! Checks the answers of guests, which the host does not trust.

use std::cell::Cell;

use crate::codec::{PackedAnswers, RejectKind, RejectReason, contract_violation};
use crate::packed::Packed;
use crate::registry::UNKNOWN_SCHEMA;
use crate::wasm::bindings::v0_1::ktables::codec::types;
use crate::wasm::byte_len::ByteLen;
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::instance::Instance;

/// The longest key, in bytes: the largest record in Kafka's default configuration. A batch of such keys
/// can still be packed.
const MAX_KEY_BYTES: usize = 1 << 20;

impl Instance {
    /// Calls the simple form of an interface once for each item. The deadline and the output limit of a batch
    /// apply to all these calls together.
    pub(super) fn call_each<T: ByteLen, B: FromIterator<Result<T, RejectReason>>>(
        &mut self,
        len: usize,
        mut call: impl FnMut(&mut Self, usize) -> wasmtime::Result<Result<T, RejectReason>>,
    ) -> Result<B, CallError> {
        let mut left = self.limits.output_per_call();
        let mut call_bounded = |index| {
            self.store.data_mut().forget_own_limit();
            let answer = call(self, index).map_err(|error| self.call_error(&error, len))?;
            let bytes = answer.as_ref().map_or(0, ByteLen::byte_len);
            left = left.checked_sub(bytes).ok_or_else(|| Fault::too_much_output(&self.limits))?;
            Ok(answer)
        };
        (0..len).map(&mut call_bounded).collect()
    }

    /// Checks the answer of a batch form: it must have one item for each item of the call. Puts the errors in
    /// the places of their items, and rejects items that are too long.
    pub(super) fn check_packed(
        &mut self,
        items: types::PackedResult,
        errors: Vec<types::SlotError>,
        expected: usize,
    ) -> Result<PackedAnswers<'static>, CallError> {
        let items = Packed::from_parts(items.bytes, items.ends)
            .map_err(|reason| Fault::contract(format!("malformed packed list: {reason}")))?;
        if items.len() != expected {
            return Err(Fault::contract(format!("answered with {} items for {expected}", items.len())).into());
        }
        check_indices(errors.iter().map(|error| error.index).collect(), expected)?;
        let reason = |error: types::SlotError| (error.index as usize, self.codec_error_reason(error.error));
        let rejected = errors.into_iter().map(reason).collect();
        let may_exceed = items.bytes().len() > self.limits.output;
        let mut answers = PackedAnswers::from_parts(items, rejected);
        if may_exceed {
            answers.check(|_, item| self.check_size(item).map(drop));
        }
        Ok(answers)
    }

    /// Converts a guest's error for an item to a reject reason with the guest's message.
    pub(super) fn map_codec_error<T>(&self, answer: Result<T, types::CodecError>) -> Result<T, RejectReason> {
        answer.map_err(|error| self.codec_error_reason(error))
    }

    fn codec_error_reason(&self, error: types::CodecError) -> RejectReason {
        let (kind, message) = match error {
            types::CodecError::Malformed(message) => (RejectKind::Malformed, message),
            types::CodecError::Invalid(message) => (RejectKind::Invalid, message),
            types::CodecError::Unsupported(message) => (RejectKind::Unsupported, message),
            types::CodecError::Other(message) => match message.strip_prefix(UNKNOWN_SCHEMA) {
                Some(reason) => (RejectKind::UnknownSchema, reason.to_owned()),
                None => (RejectKind::Other, message),
            },
        };
        self.reject_reason(kind, message)
    }

    /// Rejects answers that are not JSON. An instance that returned one is broken.
    pub(super) fn check_json(&mut self, mut answers: PackedAnswers<'static>) -> PackedAnswers<'static> {
        let reject = contract_violation(Some(&self.id));
        let broken = Cell::new(false);
        answers.check_json(|kind, reason| {
            broken.set(true);
            reject(kind, reason)
        });
        self.is_broken |= broken.get();
        answers
    }

    /// Rejects answers that cannot be keys or parts of keys. An instance that returned one is broken.
    pub(super) fn check_key_texts(&mut self, mut answers: PackedAnswers<'static>) -> PackedAnswers<'static> {
        answers.check(|_, item| self.check_key_text(item));
        answers
    }

    /// Checks that an answer can be a key or a part of one. If not, the instance is broken.
    pub(super) fn check_key_text(&mut self, item: &[u8]) -> Result<(), RejectReason> {
        if item.len() > MAX_KEY_BYTES {
            self.is_broken = true;
            let message = format!(
                "answered with a key of {} bytes, but at most {MAX_KEY_BYTES} are allowed",
                item.len()
            );
            return Err(self.reject_reason(RejectKind::Output, message));
        }
        std::str::from_utf8(item).map(drop).map_err(|error| {
            self.is_broken = true;
            let reject = contract_violation(Some(&self.id));
            reject(RejectKind::InvalidUtf8, format!("not UTF-8: {error}"))
        })
    }

    /// Checks that an answer is not longer than `limits.output`. If it is, the instance is broken.
    pub(super) fn check_size<T: AsRef<[u8]>>(&mut self, item: T) -> Result<T, RejectReason> {
        let (len, limit) = (item.as_ref().len(), self.limits.output);
        if len <= limit {
            return Ok(item);
        }
        self.is_broken = true;
        let message = format!("answered with {len} bytes, but at most {limit} are allowed (limits.output)");
        Err(self.reject_reason(RejectKind::Output, message))
    }

    fn reject_reason(&self, kind: RejectKind, message: String) -> RejectReason {
        RejectReason::new(kind, message, Some(self.id.clone()))
    }
}

/// Checks that the indices in an answer ascend, and that all are below the number of items.
pub(super) fn check_indices(indices: Vec<u32>, items: usize) -> Result<Vec<usize>, Fault> {
    let indices: Vec<usize> = indices.into_iter().map(|index| index as usize).collect();
    let is_ascending = indices.windows(2).all(|pair| pair[0] < pair[1]);
    if is_ascending && indices.last().is_none_or(|&last| last < items) {
        Ok(indices)
    } else {
        Err(Fault::contract("the indices in the answer do not ascend within the batch"))
    }
}
