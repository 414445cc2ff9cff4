//! A model of the contract in ten lines, and a test that a view behaves like it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;

use crate::codec::{Codecs, LengthPrefixed};
use crate::log::{OffsetRange, RecordBatch, TopicDescription};
use crate::table::change::{Change, Effect};
use crate::table::entry::Entry;
use crate::table::generation::decode;
use crate::table::settings::OnReject;
use crate::table::view::{ApplyOptions, ApplyResult, View};

/// A record's key and value, made of small numbers so that keys repeat.
type Record = (Option<String>, Option<String>);

/// The expected entries, and the keys with a notice. Last write wins; null deletes; a rejected record changes
/// no entry.
#[derive(Default)]
struct Model(BTreeMap<String, String>, HashSet<String>);

impl Model {
    fn apply(&mut self, (key, value): &Record) {
        let Some(key) = key.as_ref().filter(|key| key.contains(':')) else { return };
        self.1.remove(key);
        match value {
            None => drop(self.0.remove(key)),
            Some(value) if value == "poison" => drop(self.1.insert(key.clone())),
            Some(value) => drop(self.0.insert(key.clone(), value.clone())),
        }
    }
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let key = prop_oneof![
        8 => (0..3_i32, 0..4_i32).prop_map(|(group, member)| Some(format!("2:g{group}m{member}"))),
        1 => Just(Some("foreign".to_owned())),
        1 => Just(None),
    ];
    let value = prop_oneof![
        6 => (0..50_i32).prop_map(|number| Some(number.to_string())),
        1 => Just(Some("null".to_owned())),
        2 => Just(Some("poison".to_owned())),
        3 => Just(None),
    ];
    proptest::collection::vec((key, value), 0..120)
}

fn topic() -> Arc<TopicDescription> {
    Arc::new(TopicDescription { name: "t".to_owned(), id: "1".to_owned(), partitions: 1 })
}

/// Everything that can be read from a view, by key, by group and member, and in order.
fn contents(view: &View) -> impl PartialEq + std::fmt::Debug + use<> {
    let rows = view.rows();
    let keys = (0..3).flat_map(|group| (0..4).map(move |member| (format!("g{group}"), format!("m{member}"))));
    let by_key: Vec<Option<Entry>> = keys
        .clone()
        .map(|(group, member)| rows.get(&format!("{}:{group}{member}", group.len())).cloned())
        .collect();
    let by_pair: Vec<Option<Entry>> =
        keys.map(|(group, member)| rows.member(&group, &member).cloned()).collect();
    (by_key, by_pair, rows.iter().cloned().collect::<Vec<_>>(), rows.group_count())
}

/// Splits the records into batches of one partition.
fn batches(records: &[Record], size: usize) -> Vec<RecordBatch> {
    let mut offsets = 0..;
    let batch = |records: &[Record]| {
        let mut batch = RecordBatch::new(0);
        for ((key, value), offset) in records.iter().zip(&mut offsets) {
            let (key, value) = (key.as_deref(), value.as_deref());
            batch.push(offset, Some(0), key.map(str::as_bytes), value.map(str::as_bytes), Vec::new());
        }
        batch
    };
    records.chunks(size).map(batch).collect()
}

fn change(effect: Effect) -> Option<Change> {
    match effect {
        Effect::Change(change) => Some(change),
        Effect::Rejected { .. } => None,
    }
}

proptest! {
    #[test]
    fn a_view_behaves_like_the_model(records in records(), size in 1..40_usize, sorted_at in 0..10_usize) {
        let codecs = Codecs { group_scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
        let (mut view, mut model) = (View::unsorted(1, topic(), "f".into()), Model::default());
        view.add_partition(OffsetRange { partition: 0, start: 0, end: 0 });
        let mut changes = BTreeMap::new();
        let mut earlier = Vec::new();
        let entries = |view: &View| view.rows().iter().cloned().collect::<Vec<_>>();
        for (number, batch) in batches(&records, size).iter().enumerate() {
            // The view is sorted at once, later, or at the end.
            if number == sorted_at {
                view.sort();
            }
            earlier.push((view.clone(), contents(&view)));
            let options = ApplyOptions { on_reject: OnReject::Keep, collect_effects: true };
            let mut applied = ApplyResult::default();
            view.apply(decode(&codecs, batch).unwrap(), options, None, &mut applied);
            // The changes alone rebuild the table, and each begins where the last one ended.
            for change in applied.effects.into_iter().filter_map(change) {
                let key = change.key().to_owned();
                let before = change.old.as_ref().map(|entry| entry.json().to_owned());
                assert_eq!(changes.get(&key), before.as_ref());
                match change.new {
                    Some(entry) => changes.insert(key, entry.json().to_owned()),
                    None => changes.remove(&key),
                };
            }
        }
        view.sort();
        records.iter().for_each(|record| model.apply(record));

        let rows: BTreeMap<_, _> =
            view.rows().iter().map(|e| (e.key().to_owned(), e.json().to_owned())).collect();
        prop_assert_eq!(&rows, &model.0);
        prop_assert_eq!(&changes, &model.0);
        let notices: HashSet<_> = view.notices().map(|(key, _)| key.to_string()).collect();
        prop_assert_eq!(notices, model.1);
        prop_assert_eq!(entries(&view).into_iter().map(|e| e.key().to_owned()).collect::<Vec<_>>(),
            model.0.keys().cloned().collect::<Vec<_>>());
        let nested: BTreeMap<_, _> = view
            .rows()
            .groups()
            .flat_map(|group| view.rows().members(group).map(|e| (e.key().to_owned(), e.json().to_owned())))
            .collect();
        prop_assert_eq!(&nested, &model.0);
        prop_assert_eq!(view.rows().groups().count(), view.rows().group_count());
        for entry in entries(&view) {
            let (group, member) = (entry.group().unwrap(), entry.member().unwrap());
            prop_assert_eq!(view.rows().get(entry.key()), Some(&entry));
            prop_assert_eq!(view.rows().member(group, member), Some(&entry));
            prop_assert_eq!(view.rows().member_count(group), view.rows().members(group).count());
        }
        prop_assert_eq!(view.counters.records as usize, records.len());
        prop_assert_eq!(view.position(0) as usize, records.len());
        let payload: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        prop_assert_eq!(view.counters.payload_bytes as usize, payload);
        for (view, contents_then) in earlier {
            prop_assert_eq!(contents(&view), contents_then);
        }
    }
}
