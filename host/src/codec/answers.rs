//! The answers of a codec for a batch of items: each item becomes text or bytes, or is rejected.

use std::borrow::Cow;
use std::iter::Peekable;
use std::slice;
use std::sync::Arc;

use crate::codec::{ComponentId, RejectKind, RejectReason};
use crate::packed::Packed;

/// The answers of a codec for a batch, packed: one for each item that was passed in. Input that a codec
/// returns unchanged is borrowed, not copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedAnswers<'a> {
    items: Cow<'a, Packed>,
    /// The rejected items, by ascending index. Their entries in `items` have no meaning.
    rejected: Vec<(usize, RejectReason)>,
    /// Whether every item that is not rejected is known to be JSON text on one line.
    is_json: bool,
}

impl<'a> PackedAnswers<'a> {
    /// Creates an empty list of answers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers each item with the item itself.
    #[must_use]
    pub fn unchanged(items: &'a Packed) -> Self {
        Self { items: Cow::Borrowed(items), ..Self::default() }
    }

    /// Combines the answers for all items with the indices and reasons of the rejected ones. A rejected item
    /// also needs an entry in `items`, which is ignored. An index without an item is ignored, and if an item
    /// has several reasons, the first one counts.
    #[must_use]
    pub fn from_parts(items: Packed, mut rejected: Vec<(usize, RejectReason)>) -> Self {
        rejected.retain(|(index, _)| *index < items.len());
        rejected.sort_by_key(|(index, _)| *index);
        rejected.dedup_by_key(|(index, _)| *index);
        Self { items: Cow::Owned(items), rejected, is_json: false }
    }

    /// Adds the answer for the next item.
    pub fn push(&mut self, answer: Result<impl AsRef<[u8]>, RejectReason>) {
        let index = self.len();
        match answer {
            Ok(item) => self.items.to_mut().push(item.as_ref()),
            Err(reason) => {
                self.items.to_mut().push(&[]);
                self.rejected.push((index, reason));
            }
        }
        self.is_json = false;
    }

    /// Returns the number of answers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no answers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the bytes of the items.
    #[cfg(feature = "wasm")]
    pub(crate) fn byte_len(&self) -> usize {
        self.items.bytes().len()
    }

    /// Iterates over the reasons of the rejected items.
    #[cfg(feature = "wasm")]
    pub(crate) fn rejected(&self) -> impl Iterator<Item = &RejectReason> {
        self.rejected.iter().map(|(_, reason)| reason)
    }

    /// Iterates over the answers in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<&[u8], &RejectReason>> {
        let mut rejected = RejectedItems(self.rejected.iter().peekable());
        self.items.iter().enumerate().map(move |(index, item)| match rejected.next_at(index) {
            Some(reason) => Err(reason),
            None => Ok(item),
        })
    }

    /// Returns the answer for the only item.
    ///
    /// # Errors
    ///
    /// If the item is rejected.
    ///
    /// # Panics
    ///
    /// If there are no answers.
    pub fn into_one(mut self) -> Result<Vec<u8>, RejectReason> {
        match self.rejected.pop() {
            Some((_, reason)) => Err(reason),
            None => Ok(self.items.get(0).to_vec()),
        }
    }

    /// Rejects the items that do not pass a check. Items that are already rejected are not checked.
    pub(crate) fn check(&mut self, mut check: impl FnMut(usize, &[u8]) -> Result<(), RejectReason>) {
        let mut rejected = Vec::new();
        let mut before = std::mem::take(&mut self.rejected).into_iter().peekable();
        for (index, item) in self.items.iter().enumerate() {
            match before.next_if(|(rejected, _)| *rejected == index) {
                Some(known) => rejected.push(known),
                None => rejected.extend(check(index, item).err().map(|reason| (index, reason))),
            }
        }
        self.rejected = rejected;
    }

    /// Rejects items that are not UTF-8. `reject` creates the reason.
    pub(crate) fn check_text(&mut self, reject: impl Fn(RejectKind, String) -> RejectReason) {
        self.check(|_, item| parse_text(item, &reject).map(drop));
    }

    /// Rejects items that are not JSON text, and removes the line breaks from the others. `reject` creates
    /// the reason. Does nothing if the items were checked before.
    pub(crate) fn check_json(&mut self, reject: impl Fn(RejectKind, String) -> RejectReason) {
        if self.is_json {
            return;
        }
        let mut has_line_breaks = false;
        self.check(|_, item| {
            let checked = ktables_json::check(parse_text(item, &reject)?)
                .map_err(|error| reject(RejectKind::InvalidJson, format!("not JSON: {error}")))?;
            has_line_breaks |= checked.has_line_breaks;
            Ok(())
        });
        if has_line_breaks {
            self.items = Cow::Owned(self.items.iter().map(remove_line_breaks).collect());
        }
        self.is_json = true;
    }
}

/// The rejected items of a batch, for lookups by ascending index.
struct RejectedItems<'a>(Peekable<slice::Iter<'a, (usize, RejectReason)>>);

impl<'a> RejectedItems<'a> {
    /// Returns why the item at this index is rejected, or `None` if it is not.
    fn next_at(&mut self, index: usize) -> Option<&'a RejectReason> {
        self.0.next_if(|(rejected, _)| *rejected == index).map(|(_, reason)| reason)
    }
}

impl<T: AsRef<[u8]>> FromIterator<Result<T, RejectReason>> for PackedAnswers<'_> {
    fn from_iter<I: IntoIterator<Item = Result<T, RejectReason>>>(answers: I) -> Self {
        let mut packed = Self::new();
        answers.into_iter().for_each(|answer| packed.push(answer));
        packed
    }
}

fn parse_text(
    item: &[u8],
    reject: impl Fn(RejectKind, String) -> RejectReason,
) -> Result<&str, RejectReason> {
    std::str::from_utf8(item).map_err(|error| reject(RejectKind::InvalidUtf8, format!("not UTF-8: {error}")))
}

/// Removes the line breaks of JSON text, because commands print one value per line. In valid
/// JSON, line breaks occur only between tokens, never inside a string.
fn remove_line_breaks(json: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if json.iter().any(is_break) {
        json.iter().copied().filter(|byte| !is_break(byte)).collect()
    } else {
        json.into()
    }
}

/// Returns the text of an item that was checked to be UTF-8.
///
/// # Panics
///
/// If the item was not checked, and is not UTF-8.
pub(crate) fn checked_text(item: &[u8]) -> &str {
    // OK because items that are not UTF-8 were rejected.
    std::str::from_utf8(item).expect("UTF-8")
}

/// Returns a function that creates the reason for rejecting an answer that breaks the contract of codecs.
pub(crate) fn contract_violation(
    component: Option<&Arc<ComponentId>>,
) -> impl Fn(RejectKind, String) -> RejectReason {
    move |kind, reason| RejectReason::new(kind, format!("the codec's answer is {reason}"), component.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject_reason() -> RejectReason {
        RejectReason::without_component(RejectKind::Other, "no")
    }

    #[test]
    fn a_check_keeps_the_items_that_are_already_rejected() {
        let answers = [Ok("1"), Err(reject_reason()), Ok("{"), Ok("[1,\n2]"), Ok("4")];
        let mut answers: PackedAnswers<'_> = answers.into_iter().collect();
        answers.check_json(contract_violation(None));
        let kinds: Vec<_> = answers.iter().map(|answer| answer.map_err(|reason| reason.kind)).collect();
        let expected: [Result<&[u8], _>; 5] =
            [Ok(b"1"), Err(RejectKind::Other), Err(RejectKind::InvalidJson), Ok(b"[1,2]"), Ok(b"4")];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn each_rejected_item_counts_once() {
        let items: Packed = ["1", "2", "3"].iter().collect();
        let rejected = [2, 0, 0, 7].map(|index| (index, reject_reason())).into();
        let answers = PackedAnswers::from_parts(items, rejected);
        let is_accepted: Vec<bool> = answers.iter().map(|answer| answer.is_ok()).collect();
        assert_eq!(is_accepted, [false, true, false]);
    }

    #[test]
    fn only_line_breaks_are_removed() {
        let items: Packed = ["{\n  \"a\":\r\n 1}", r#""a\nb""#, "[1, 2]"].iter().collect();
        let mut answers = PackedAnswers::unchanged(&items);
        answers.check_json(contract_violation(None));
        let lines: Vec<_> = answers.iter().map(|answer| str::from_utf8(answer.unwrap()).unwrap()).collect();
        assert_eq!(lines, ["{  \"a\": 1}", r#""a\nb""#, "[1, 2]"]);
    }

    #[test]
    fn unchanged_items_are_borrowed() {
        let items: Packed = ["1", "\"a\"", "x"].iter().collect();
        let mut answers = PackedAnswers::unchanged(&items);
        answers.check_json(contract_violation(None));
        assert!(matches!(answers.items, Cow::Borrowed(_)));
        assert_eq!(answers.iter().filter(Result::is_ok).count(), 2);
    }
}
