//! Checked calls of codecs. A codec that panics, or that returns more or fewer answers than it received
//! items, has faulted, whether it is a component or native.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::codec::{
    Answers, CodecFailure, Codecs, Encoded, GroupKey, PackedAnswers, RejectKind, RejectReason,
};
use crate::log::Header;
use crate::packed::Packed;

/// The codecs of a topic, with checked calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedCodecs<'a>(pub(crate) &'a Codecs);

impl CheckedCodecs<'_> {
    pub(crate) fn wants_headers(self) -> bool {
        self.0.value.wants_headers()
    }

    pub(crate) fn decode_keys<'b>(self, raw: &'b Packed) -> Result<PackedAnswers<'b>, CodecFailure> {
        call_checked(raw.len(), || self.0.key.decode_keys(raw), PackedAnswers::len)
    }

    pub(crate) fn encode_keys(self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        call_checked(keys.len(), || self.0.key.encode_keys(keys), PackedAnswers::len)
    }

    pub(crate) fn decode_values<'a>(
        self,
        raw: &'a Packed,
        headers: &[&[Header]],
    ) -> Result<PackedAnswers<'a>, CodecFailure> {
        call_checked(raw.len(), || self.0.value.decode_values(raw, headers), PackedAnswers::len)
    }

    pub(crate) fn encode_values(self, values: &[&str]) -> Answers<Encoded> {
        call_checked(values.len(), || self.0.value.encode_values(values), Vec::len)
    }

    /// Splits keys into group and member. Returns `None` without a group scheme.
    pub(crate) fn split(self, keys: &[&str]) -> Option<Answers<Option<GroupKey>>> {
        let scheme = self.0.group_scheme.as_ref()?;
        Some(call_checked(keys.len(), || scheme.split_keys(keys), Vec::len))
    }

    /// Joins group and member to a key. Returns `None` without a group scheme.
    pub(crate) fn join(self, group: &str, member: &str) -> Option<Answers<Box<str>>> {
        let scheme = self.0.group_scheme.as_ref()?;
        Some(call_checked(1, || scheme.join_keys(&[(group, member)]), Vec::len))
    }
}

/// Calls a codec for this many items, and checks that it returns one answer for each.
fn call_checked<T>(
    items: usize,
    call: impl FnOnce() -> Result<T, CodecFailure>,
    len: impl FnOnce(&T) -> usize,
) -> Result<T, CodecFailure> {
    let answers = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answers) => answers?,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let message = format!("the codec panicked: {}", text.unwrap_or("no message"));
            return Err(CodecFailure::Fault(RejectReason::new(RejectKind::Trap, message, None)));
        }
    };
    match len(&answers) {
        count if count == items => Ok(answers),
        count => {
            let message = format!("the codec returned {count} answers for {items} items");
            Err(CodecFailure::Fault(RejectReason::new(RejectKind::Contract, message, None)))
        }
    }
}
