//! The status and the statistics of a table.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::log::{Offset, Partition};
use crate::table::{AnomalyCount, CheckpointStats, DeadLetterStats, PartitionProgress, Stats, Status};

/// The status of a table, without its partitions.
#[derive(Debug, Serialize)]
pub(crate) struct StatusJson<'a> {
    log: &'a str,
    topic: &'a str,
    status: &'static str,
    since: String,
    reason: Option<String>,
    generation: u64,
    entries: u64,
    groups: u64,
    records: u64,
    tombstones: u64,
    keyless: u64,
    foreign: u64,
    rejected: u64,
    rejects: BTreeMap<&'static str, u64>,
    cross_partition: u64,
    older: u64,
    other_partitioner: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    first_anomalies: BTreeMap<&'static str, RecordPosition>,
    payload_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters: Option<DeadLettersJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loading: Option<String>,
    catch_up_seconds: Option<f64>,
    replayed: u64,
    lag: Option<i64>,
}

/// The position of a record.
#[derive(Debug, Serialize)]
pub(crate) struct RecordPosition {
    partition: i32,
    offset: i64,
}

/// The state of a checkpoint.
#[derive(Debug, Serialize)]
pub(crate) struct CheckpointJson {
    folder: String,
    loaded: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unused: Option<String>,
    as_of: Option<String>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl CheckpointJson {
    pub(crate) fn new(stats: &CheckpointStats) -> Self {
        Self {
            folder: stats.folder.display().to_string(),
            loaded: stats.loaded,
            unused: stats.unused.as_deref().map(str::to_owned),
            as_of: stats.as_of.map(|as_of| humantime::format_rfc3339_millis(as_of).to_string()),
            bytes: stats.bytes,
            failed: stats.failed.as_deref().map(str::to_owned),
        }
    }
}

/// What became of rejected records in a table with a dead-letter topic.
#[derive(Debug, Serialize)]
pub(crate) struct DeadLettersJson<'a> {
    topic: &'a str,
    written: u64,
    already_written: u64,
    waiting: u64,
    lost: u64,
}

impl<'a> DeadLettersJson<'a> {
    fn new(stats: &'a DeadLetterStats) -> Self {
        Self {
            topic: &stats.topic,
            written: stats.written,
            already_written: stats.already_written,
            waiting: stats.waiting,
            lost: stats.lost,
        }
    }
}

/// Returns the position of the first anomaly of each kind.
fn first_anomalies(stats: &Stats) -> BTreeMap<&'static str, RecordPosition> {
    let counts = [
        ("foreign", stats.foreign),
        ("cross_partition", stats.cross_partition),
        ("older", stats.older),
        ("other_partitioner", stats.other_partitioner),
    ];
    let first = |(name, count): (&'static str, AnomalyCount)| {
        count.first.map(|(partition, offset)| (name, RecordPosition { partition, offset }))
    };
    counts.into_iter().filter_map(first).collect()
}

/// The status of a table, with its partitions.
#[derive(Debug, Serialize)]
pub(crate) struct FullStatusJson<'a> {
    #[serde(flatten)]
    pub(crate) status: StatusJson<'a>,
    pub(crate) partitions: &'a [PartitionJson],
}

/// How far a partition was applied.
#[derive(Debug, Serialize)]
pub(crate) struct PartitionJson {
    partition: i32,
    start: i64,
    position: i64,
    /// `None` if the log did not return it.
    end: Option<i64>,
    lag: Option<i64>,
}

impl<'a> StatusJson<'a> {
    pub(crate) fn new(
        log: &'a str,
        topic: &'a str,
        status: &Status,
        stats: &'a Stats,
        partitions: &[PartitionJson],
    ) -> Self {
        Self {
            log,
            topic,
            status: status.name(),
            since: humantime::format_rfc3339_seconds(stats.status_since).to_string(),
            reason: status.reason(),
            generation: stats.generation,
            entries: stats.entries,
            groups: stats.groups,
            records: stats.records,
            tombstones: stats.tombstones,
            keyless: stats.keyless,
            foreign: stats.foreign.count,
            rejected: stats.rejects.values().sum(),
            rejects: stats.rejects.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
            cross_partition: stats.cross_partition.count,
            older: stats.older.count,
            other_partitioner: stats.other_partitioner.count,
            first_anomalies: first_anomalies(stats),
            payload_bytes: stats.payload_bytes,
            checkpoint: stats.checkpoint.as_ref().map(CheckpointJson::new),
            dead_letters: stats.dead_letters.as_ref().map(DeadLettersJson::new),
            loading: stats.loading.map(|loading| loading.to_string()),
            catch_up_seconds: stats.catch_up.map(|time| (time.as_secs_f64() * 1e3).round() / 1e3),
            replayed: stats.replayed,
            lag: partitions.iter().map(|partition| partition.lag).sum(),
        }
    }
}

impl PartitionJson {
    /// Creates the JSON form of a partition's progress. `ends` has the end offsets that the log returned.
    pub(crate) fn new(progress: &PartitionProgress, ends: &[(Partition, Offset)]) -> Self {
        let end = ends.iter().find(|end| end.0 == progress.partition).map(|end| end.1);
        Self {
            partition: progress.partition,
            start: progress.start,
            position: progress.position,
            end,
            lag: end.map(|end| (end - progress.position).max(0)),
        }
    }
}
