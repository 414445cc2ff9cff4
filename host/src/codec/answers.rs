//! What a codec answers for a batch of items, each of which becomes text or bytes.

use std::borrow::Cow;
use std::iter::Peekable;
use std::slice;
use std::sync::Arc;

use crate::codec::{ComponentId, RejectKind, RejectReason};
use crate::packed::Packed;

/// As many items as were asked for, packed, and which of them are rejected. Items that
/// are answered with themselves are lent, not copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedAnswers<'a> {
    items: Cow<'a, Packed>,
    /// By ascending index. What stands in the item's place means nothing.
    rejected: Vec<(usize, RejectReason)>,
    /// Every item that is not rejected is a JSON text on one line.
    is_json: bool,
}

impl<'a> PackedAnswers<'a> {
    /// No answers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An answer for each item: itself.
    #[must_use]
    pub fn unchanged(items: &'a Packed) -> Self {
        Self { items: Cow::Borrowed(items), ..Self::default() }
    }

    /// Items that were accepted, and those that were rejected, by ascending index.
    #[must_use]
    pub fn from_parts(items: Packed, rejected: Vec<(usize, RejectReason)>) -> Self {
        Self { items: Cow::Owned(items), rejected, is_json: false }
    }

    /// Adds the answer for the next item.
    pub fn push(&mut self, answer: Result<impl AsRef<[u8]>, RejectReason>) {
        let index = self.len();
        match answer {
            Ok(item) => self.items.to_mut().push(item.as_ref()),
            Err(rejection) => {
                self.items.to_mut().push(&[]);
                self.rejected.push((index, rejection));
            }
        }
        self.is_json = false;
    }

    /// The number of answers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no answers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The answers in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<&[u8], &RejectReason>> {
        let mut rejected = self.rejections();
        self.items.iter().enumerate().map(move |(index, item)| match rejected.at(index) {
            Some(rejection) => Err(rejection),
            None => Ok(item),
        })
    }

    /// The answer to the only item.
    ///
    /// # Errors
    ///
    /// If it is rejected.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn into_one(mut self) -> Result<Vec<u8>, RejectReason> {
        match self.rejected.pop() {
            Some((_, rejection)) => Err(rejection),
            None => Ok(self.items.get(0).to_vec()),
        }
    }

    /// Rejects the items that do not pass a check, those already rejected aside.
    pub(crate) fn check(&mut self, mut check: impl FnMut(usize, &[u8]) -> Result<(), RejectReason>) {
        let mut rejected = Vec::new();
        let mut before = std::mem::take(&mut self.rejected).into_iter().peekable();
        for (index, item) in self.items.iter().enumerate() {
            match before.next_if(|(rejected, _)| *rejected == index) {
                Some(known) => rejected.push(known),
                None => rejected.extend(check(index, item).err().map(|rejection| (index, rejection))),
            }
        }
        self.rejected = rejected;
    }

    /// Rejects what is not a text, in these words.
    pub(crate) fn check_text(&mut self, reject: impl Fn(RejectKind, String) -> RejectReason) {
        self.check(|_, item| text(item, &reject).map(drop));
    }

    /// Rejects what is not a JSON text, in these words, and puts the others on one line
    /// each; nothing if that was done.
    pub(crate) fn check_json(&mut self, reject: impl Fn(RejectKind, String) -> RejectReason) {
        if self.is_json {
            return;
        }
        let mut on_one_line = true;
        self.check(|_, item| {
            let checked = ktables_json::check(text(item, &reject)?)
                .map_err(|reason| reject(RejectKind::InvalidJson, format!("not JSON: {reason}")))?;
            on_one_line &= !checked.has_line_breaks;
            Ok(())
        });
        if !on_one_line {
            self.items = Cow::Owned(self.items.iter().map(on_a_line).collect());
        }
        self.is_json = true;
    }

    fn rejections(&self) -> Rejections<'_> {
        Rejections(self.rejected.iter().peekable())
    }
}

/// Rejections, asked for by ascending index.
struct Rejections<'a>(Peekable<slice::Iter<'a, (usize, RejectReason)>>);

impl<'a> Rejections<'a> {
    fn at(&mut self, index: usize) -> Option<&'a RejectReason> {
        self.0.next_if(|(rejected, _)| *rejected == index).map(|(_, rejection)| rejection)
    }
}

impl<T: AsRef<[u8]>> FromIterator<Result<T, RejectReason>> for PackedAnswers<'_> {
    fn from_iter<I: IntoIterator<Item = Result<T, RejectReason>>>(answers: I) -> Self {
        let mut packed = Self::new();
        answers.into_iter().for_each(|answer| packed.push(answer));
        packed
    }
}

fn text(item: &[u8], reject: impl Fn(RejectKind, String) -> RejectReason) -> Result<&str, RejectReason> {
    std::str::from_utf8(item).map_err(|error| reject(RejectKind::InvalidUtf8, format!("not UTF-8: {error}")))
}

/// JSON without the line breaks between its tokens: NDJSON and server-sent events are line
/// formats. Inside a string a line break would be an error.
fn on_a_line(json: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if json.iter().any(is_break) {
        json.iter().copied().filter(|byte| !is_break(byte)).collect()
    } else {
        json.into()
    }
}

/// What was checked to be text.
pub(crate) fn checked_text(item: &[u8]) -> &str {
    // OK because what is not was rejected.
    std::str::from_utf8(item).expect("UTF-8")
}

/// The words for a codec that broke the contract.
pub(crate) fn broken_contract(
    component: Option<&Arc<ComponentId>>,
) -> impl Fn(RejectKind, String) -> RejectReason {
    move |kind, reason| RejectReason::new(kind, format!("answered with what is {reason}"), component.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection() -> RejectReason {
        RejectReason::built_in(RejectKind::Other, "no")
    }

    #[test]
    fn checks_add_to_what_is_rejected() {
        let answers = [Ok("1"), Err(rejection()), Ok("{"), Ok("[1,\n2]"), Ok("4")];
        let mut answers: PackedAnswers<'_> = answers.into_iter().collect();
        answers.check_json(broken_contract(None));
        let kinds: Vec<_> = answers.iter().map(|answer| answer.map_err(|rejection| rejection.kind)).collect();
        let expected: [Result<&[u8], _>; 5] =
            [Ok(b"1"), Err(RejectKind::Other), Err(RejectKind::InvalidJson), Ok(b"[1,2]"), Ok(b"4")];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn line_breaks_go_and_nothing_else() {
        let items: Packed = ["{\n  \"a\":\r\n 1}", r#""a\nb""#, "[1, 2]"].iter().collect();
        let mut answers = PackedAnswers::unchanged(&items);
        answers.check_json(broken_contract(None));
        let lines: Vec<_> = answers.iter().map(|answer| str::from_utf8(answer.unwrap()).unwrap()).collect();
        assert_eq!(lines, ["{  \"a\": 1}", r#""a\nb""#, "[1, 2]"]);
    }

    #[test]
    fn what_is_unchanged_is_lent() {
        let items: Packed = ["1", "\"a\"", "x"].iter().collect();
        let mut answers = PackedAnswers::unchanged(&items);
        answers.check_json(broken_contract(None));
        assert!(matches!(answers.items, Cow::Borrowed(_)));
        assert_eq!(answers.iter().filter(Result::is_ok).count(), 2);
    }
}
