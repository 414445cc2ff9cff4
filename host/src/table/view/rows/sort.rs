//! Sorts all rows at once, after a topic was loaded. Most comparisons need only the first bytes after
//! the common prefix of all texts, which are kept beside the number of the row.

use std::collections::HashMap;

use rayon::slice::ParallelSliceMut;

use crate::table::entry::Entry;
use crate::table::view::rows::paged::Paged;

/// The first bytes of a row's text after the common prefix, and the number of the row.
pub(super) type RankedRow = (u64, u32);

/// Returns all rows, sorted by key.
pub(super) fn sort_by_key(rows: &Paged<Entry>) -> Vec<RankedRow> {
    sort_by_text(rows, rows.iter().map(|(number, _)| (0, number as u32)).collect(), Entry::key)
}

/// Returns the rows that have a group, sorted by group and member, and the number of groups.
pub(super) fn sort_by_group(rows: &Paged<Entry>) -> (Vec<RankedRow>, usize) {
    let mut groups: HashMap<&str, Vec<RankedRow>> = HashMap::new();
    for (number, row) in rows.iter() {
        if let Some(group) = row.group() {
            groups.entry(group).or_default().push((0, number as u32));
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_unstable_by_key(|&(group, _)| group);
    let count = groups.len();
    (groups.into_iter().flat_map(|(_, members)| sort_by_text(rows, members, member)).collect(), count)
}

/// Sorts rows by their text, and rows with the same text by key. Sorts in place, because there may be
/// millions of rows when memory is scarce.
fn sort_by_text(
    rows: &Paged<Entry>,
    mut ranked: Vec<RankedRow>,
    text: impl Fn(&Entry) -> &str + Sync,
) -> Vec<RankedRow> {
    let text = |number: u32| rows.get(number as usize).map_or("", |row| text(row));
    let Some(first) = ranked.first().map(|&(_, number)| text(number).as_bytes()) else { return ranked };
    let common = ranked.iter().fold(first.len(), |common, &(_, number)| {
        first[..common].iter().zip(text(number).as_bytes()).take_while(|(a, b)| a == b).count()
    });
    for (rank, number) in &mut ranked {
        *rank = first_bytes(&text(*number).as_bytes()[common..]);
    }
    let key = |number: u32| rows.get(number as usize).map(Entry::key);
    ranked.par_sort_unstable_by(|a, b| {
        let texts = || text(a.1).cmp(text(b.1));
        a.0.cmp(&b.0).then_with(texts).then_with(|| key(a.1).cmp(&key(b.1)))
    });
    ranked
}

/// Returns the first eight bytes as a number with the same order. Shorter texts are padded with zeros.
fn first_bytes(text: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = text.len().min(8);
    first[..len].copy_from_slice(&text[..len]);
    u64::from_be_bytes(first)
}

fn member(row: &Entry) -> &str {
    row.member().unwrap_or_default()
}
