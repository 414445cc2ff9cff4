//! Lists of byte strings in one allocation. Logs pass the keys and values of records to codecs in this form.

use std::borrow::Cow;
use std::ops::Range;

/// A list of byte strings, stored one after the other. Item `i` is `bytes[ends[i - 1]..ends[i]]`, where
/// `ends[-1]` counts as 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Packed {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a list from its two parts. `ends` must ascend, and its last number must be the length of
    /// `bytes`.
    ///
    /// # Errors
    ///
    /// A text that says which number breaks these rules.
    pub fn from_parts(bytes: Vec<u8>, ends: Vec<u32>) -> Result<Self, String> {
        if let Some(at) = ends.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(format!(
                "item {} ends at byte {}, before its start at byte {}",
                at + 1,
                ends[at + 1],
                ends[at]
            ));
        }
        let last = ends.last().map_or(0, |&end| end as usize);
        if last != bytes.len() {
            return Err(format!("the last item ends at byte {last}, but there are {} bytes", bytes.len()));
        }
        Ok(Self { bytes, ends })
    }

    /// Creates a list of these items, or returns `None` if they have more than 4 GiB together.
    pub(crate) fn checked<T: AsRef<[u8]>>(
        items: impl IntoIterator<Item = T, IntoIter: Clone>,
    ) -> Option<Self> {
        let items = items.into_iter();
        let bytes: usize = items.clone().map(|item| item.as_ref().len()).sum();
        u32::try_from(bytes).ok()?;
        Some(items.collect())
    }

    /// Appends an item.
    ///
    /// # Panics
    ///
    /// If the items together would exceed 4 GiB.
    pub fn push(&mut self, item: &[u8]) {
        self.bytes.extend_from_slice(item);
        let end = u32::try_from(self.bytes.len());
        self.ends.push(end.expect("a batch is far below 4 GiB: logs close batches at BATCH_BYTES"));
    }

    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the item at `index`.
    ///
    /// # Panics
    ///
    /// If `index` is out of range.
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }

    /// Iterates over the items in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Returns the items of a range: a copy, or the borrowed list itself if the range covers all items.
    ///
    /// # Panics
    ///
    /// If the range ends after the last item.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Cow<'_, Self> {
        if range == (0..self.len()) {
            return Cow::Borrowed(self);
        }
        Cow::Owned(range.map(|index| self.get(index)).collect())
    }

    /// Returns the bytes of all items, one after the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the position in [`Packed::bytes`] at which each item ends.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Packed {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut packed = Self::new();
        items.into_iter().for_each(|item| packed.push(item.as_ref()));
        packed
    }
}

/// A [`Packed`] list whose items may be null, like the keys and values of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PackedNullable {
    items: Packed,
    nulls: Vec<bool>,
}

impl PackedNullable {
    /// Appends an item or a null.
    pub(crate) fn push(&mut self, item: Option<&[u8]>) {
        self.items.push(item.unwrap_or_default());
        self.nulls.push(item.is_none());
    }

    /// Returns the item at `index`, or `None` if it is null.
    ///
    /// # Panics
    ///
    /// If `index` is out of range.
    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        (!self.nulls[index]).then(|| self.items.get(index))
    }

    /// Returns the number of bytes of all items together.
    pub(crate) fn byte_len(&self) -> usize {
        self.items.bytes.len()
    }

    /// Selects the items for a codec: those that are not null, and for whose index `keep` returns true.
    /// Returns them with the index in `self` of each. The list is borrowed if it contains all items.
    pub(crate) fn select(&self, keep: impl Fn(usize) -> bool) -> (Cow<'_, Packed>, Vec<usize>) {
        let indices: Vec<usize> =
            (0..self.nulls.len()).filter(|&index| !self.nulls[index] && keep(index)).collect();
        if indices.len() == self.nulls.len() {
            return (Cow::Borrowed(&self.items), indices);
        }
        let items = indices.iter().map(|&index| self.items.get(index)).collect();
        (Cow::Owned(items), indices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn malformed_parts_are_refused() {
        assert!(Packed::from_parts(vec![1, 2, 3], vec![1, 3]).is_ok());
        assert!(Packed::from_parts(vec![], vec![]).is_ok());
        assert!(Packed::from_parts(vec![1], vec![]).is_err());
        assert!(Packed::from_parts(vec![1, 2], vec![2, 1]).is_err());
        assert!(Packed::from_parts(vec![1, 2], vec![1, 9]).is_err());
    }

    proptest! {
        #[test]
        fn a_list_returns_the_items_it_was_made_from(items: Vec<Vec<u8>>) {
            let packed: Packed = items.iter().collect();
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), items.iter().collect::<Vec<_>>());
            let parts = Packed::from_parts(packed.bytes().to_vec(), packed.ends().to_vec());
            prop_assert_eq!(parts, Ok(packed));
        }

        #[test]
        fn select_returns_the_requested_items_that_are_not_null(items: Vec<Option<Vec<u8>>>, odd: bool) {
            let mut list = PackedNullable::default();
            items.iter().for_each(|item| list.push(item.as_deref()));
            let keep = |index: usize| index % 2 == usize::from(odd);
            let (packed, indices) = list.select(keep);
            let expected: Vec<usize> =
                (0..items.len()).filter(|&i| keep(i) && items[i].is_some()).collect();
            prop_assert_eq!(&indices, &expected);
            for (item, index) in packed.iter().zip(indices) {
                prop_assert_eq!(Some(item), items[index].as_deref());
            }
        }
    }
}
