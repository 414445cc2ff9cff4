//! Measures what poison records cost: a table of a component that traps on 1 of 10,000 records, and the same table
//! without them.

use std::time::{Duration, Instant};

use ktables::codec::Codecs;
use ktables::table::Table;
use ktables_tests::{MemoryLog, component};

use crate::report::{Cell, Ratio, Report};
use crate::{Options, data, say};

/// How many records the topic has.
const RECORDS: usize = 1_000_000;

/// One of this many records is a poison record.
const PER_POISON: usize = 10_000;

/// A value for which the component traps.
const POISON: &[u8] = b"poison:trap";

const WITHOUT: &str = "without";

pub(crate) fn run(options: &Options, report: &mut Report) {
    if options.wants("faults") {
        report.add(faults_cell(options));
    }
}

fn faults_cell(options: &Options) -> Cell {
    let about = format!(
        "{RECORDS} records of 100 B in memory, through a component that traps on 1 of {PER_POISON}, in turns with the same \
         topic without them"
    );
    let mut cell = Cell::new("faults", about);
    for round in 0..options.rounds {
        say(&format!("faults: round {} of {}", round + 1, options.rounds));
        for (label, poisons) in [(WITHOUT, 0), ("with", RECORDS / PER_POISON)] {
            cell.add_sample(label, "time, s", load(poisons).as_secs_f64());
        }
    }
    cell.add_ratio_for("with", "time / without", "time, s", WITHOUT, Ratio::Amount);
    cell
}

/// Loads a table of [`RECORDS`] records, this many of them poison records. Returns how long that takes.
fn load(poisons: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let values: Vec<String> = (0..1000).map(|n| data::json(n, 100)).collect();
    let keys: Vec<String> = (0..RECORDS).map(data::key).collect();
    let value = component("hostile").value_codec("t", "{}").unwrap();
    let log = MemoryLog::new(RECORDS);
    let began = Instant::now();
    let builder = Table::builder(log.clone(), "t", Codecs { value, ..Codecs::default() });
    let table = runtime.block_on(builder.catchup_timeout(Duration::from_secs(600)).open()).unwrap();
    let is_poison = |n: usize| poisons > 0 && n % PER_POISON == PER_POISON / 2;
    let value = |n: usize| if is_poison(n) { POISON } else { values[n % values.len()].as_bytes() };
    log.append(keys.iter().enumerate().map(|(n, key)| (key.as_str(), value(n))));
    runtime.block_on(table.wait_until_ready()).unwrap();
    let took = began.elapsed();
    let rejected: u64 = table.stats().rejects.values().sum();
    assert!(table.rejects().iter().all(|reject| is_poison(usize::try_from(reject.offset).unwrap())));
    assert_eq!((table.len(), rejected), (RECORDS - poisons, poisons as u64));
    took
}
