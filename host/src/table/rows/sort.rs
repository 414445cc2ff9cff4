//! Putting all rows in order at once, as loading a topic needs it. Most comparisons are
//! of the bytes behind what all texts begin with, which are at hand; only what they
//! leave open is looked up.

use std::collections::HashMap;

use rayon::slice::ParallelSliceMut;

use crate::table::entry::Entry;
use crate::table::rows::paged::Paged;

/// A row's number, and the first bytes of its text that matter.
type Ranked = (u64, u32);

/// The numbers of all rows, by key.
pub(super) fn sort_by_key(rows: &Paged<Entry>) -> Vec<u32> {
    sorted(rows, rows.iter().map(|(number, _)| number as u32).collect(), Entry::key)
}

/// The numbers of the rows that have a group, by group and member; and how many groups
/// there are.
pub(super) fn sort_by_group(rows: &Paged<Entry>) -> (Vec<u32>, usize) {
    let mut groups: HashMap<&str, Vec<u32>> = HashMap::new();
    for (number, row) in rows.iter() {
        if let Some(group) = row.group() {
            groups.entry(group).or_default().push(number as u32);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_unstable_by_key(|&(group, _)| group);
    let count = groups.len();
    (groups.into_iter().flat_map(|(_, members)| sorted(rows, members, member)).collect(), count)
}

/// These rows by their text.
fn sorted(rows: &Paged<Entry>, numbers: Vec<u32>, text: impl Fn(&Entry) -> &str + Sync) -> Vec<u32> {
    let text = |number: u32| rows.get(number as usize).map_or("", |row| text(row));
    let Some(first) = numbers.first().map(|&number| text(number).as_bytes()) else { return numbers };
    let common = numbers.iter().fold(first.len(), |common, &number| {
        first[..common].iter().zip(text(number).as_bytes()).take_while(|(a, b)| a == b).count()
    });
    let mut ranked: Vec<Ranked> =
        numbers.iter().map(|&number| (rank(&text(number).as_bytes()[common..]), number)).collect();
    ranked.par_sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| text(a.1).cmp(text(b.1))));
    ranked.into_iter().map(|(_, number)| number).collect()
}

/// The first eight bytes as a number of the same order; what is shorter ends with zeros.
fn rank(text: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = text.len().min(8);
    first[..len].copy_from_slice(&text[..len]);
    u64::from_be_bytes(first)
}

fn member(row: &Entry) -> &str {
    row.member().unwrap_or_default()
}
