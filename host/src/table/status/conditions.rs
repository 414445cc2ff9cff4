//! The conditions that a table's status is computed from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::log::Partition;
use crate::table::error::TableError;
use crate::table::status::lag::{Lag, LagCause};
use crate::table::status::table_status::Status;
use crate::table::view::View;

/// How many lagging partitions a status lists. It only counts the others.
const LAGS_LISTED: usize = 4;

/// Everything that a table's status is computed from.
#[derive(Debug, Default)]
pub(in crate::table) struct Conditions {
    /// Whether a generation was complete once.
    pub(in crate::table) was_complete: bool,
    /// Why the log cannot be reached.
    pub(in crate::table) unreachable: Option<Arc<str>>,
    /// Why a generation that was served or loaded has ended. Kept until another one is complete.
    pub(in crate::table) outdated: Option<Arc<str>>,
    /// Why rejected records cannot be written to the dead-letter topic.
    pub(in crate::table) dead_letters: Option<Arc<str>>,
    pub(in crate::table) failed: Option<Arc<TableError>>,
    pub(in crate::table) is_stopped: bool,
    /// The conditions of the generation that is served; while none is, of the one that is loaded.
    pub(in crate::table) generation: GenerationConditions,
    /// The conditions of the generation that will replace the served one.
    pub(in crate::table) next_generation: Option<GenerationConditions>,
    /// Whether that one waits for a caller: its problems are not those of the table.
    pub(in crate::table) is_next_gated: bool,
}

/// What a generation contributes to the status of its table.
#[derive(Debug, Default)]
pub(in crate::table) struct GenerationConditions {
    /// Whether it has applied everything that the topic held when it began.
    pub(in crate::table) is_complete: bool,
    /// The progress of loading, if it takes longer than the catch-up timeout.
    pub(in crate::table) late: Option<Arc<str>>,
    /// Partitions that lag.
    pub(in crate::table) lags: Vec<Lag>,
    /// Which memory limit is exceeded, so that no records are applied.
    pub(in crate::table) memory: Option<Arc<str>>,
    /// Why dead letters must be written before more records are applied.
    pub(in crate::table) dead_letters: Option<Arc<str>>,
    /// Why a codec is quarantined.
    pub(in crate::table) quarantined: Option<Arc<str>>,
    /// Why a codec must not be used any more.
    pub(in crate::table) revoked: Option<Arc<str>>,
    /// Why the host cannot decode a batch at present, by partition.
    pub(in crate::table) undecoded: BTreeMap<Partition, Arc<str>>,
}

impl Conditions {
    /// Records that the generation that `generation` describes is complete. It has this view.
    pub(in crate::table) fn set_complete(&mut self, view: &View) {
        self.outdated = None;
        self.was_complete = true;
        self.generation.is_complete = true;
        // What was slow to arrive has been applied by now.
        self.generation.lags.retain(|lag| view.position(lag.partition) <= lag.position);
    }

    /// Keeps the conditions of a generation that was replaced, and waits for a caller now.
    pub(in crate::table) fn keep(&mut self, conditions: GenerationConditions) {
        self.next_generation = Some(GenerationConditions { is_complete: false, late: None, ..conditions });
        self.is_next_gated = true;
    }

    pub(in crate::table) fn status(&self) -> Status {
        if let Some(error) = &self.failed {
            return Status::Failed(error.clone());
        }
        if self.is_stopped {
            return Status::Stopped;
        }
        // Reported even while the table loads: somebody has to raise a memory limit, or to repair a codec or a topic.
        if let Some(reason) = &self.dead_letters {
            return Status::Degraded(reason.clone());
        }
        let next = self.next_generation.as_ref().filter(|_| !self.is_next_gated);
        let mut generations = [&self.generation].into_iter().chain(next);
        if let Some(reason) = generations.find_map(|generation| {
            let GenerationConditions { memory, dead_letters, quarantined, revoked, .. } = generation;
            memory.as_ref().or(dead_letters.as_ref()).or(quarantined.as_ref()).or(revoked.as_ref())
        }) {
            return Status::Degraded(reason.clone());
        }
        let GenerationConditions { is_complete, late, lags, undecoded, .. } = &self.generation;
        // Until the catch-up timeout, other problems may pass by themselves.
        if !is_complete && late.is_none() {
            return Status::Loading;
        }
        if let Some(reason) = &self.unreachable {
            return Status::Degraded(reason.clone());
        }
        if self.outdated.is_some() || !undecoded.is_empty() {
            let reasons: Vec<&str> =
                self.outdated.iter().chain(undecoded.values().next()).map(|reason| &**reason).collect();
            return Status::Degraded(reasons.join("; ").into());
        }
        if *is_complete && lags.is_empty() {
            return Status::CaughtUp;
        }
        let late = late.iter().filter(|_| !is_complete).map(ToString::to_string);
        // While the table loads, slow decoding is expected.
        let lags = lags.iter().filter(|lag| *is_complete || lag.cause != LagCause::Slow);
        Status::Degraded(late.chain(describe_lags(lags)).collect::<Vec<_>>().join("; ").into())
    }
}

/// Describes the first lagging partitions, and counts the others.
fn describe_lags<'a>(lags: impl Iterator<Item = &'a Lag>) -> Vec<String> {
    let mut listed: Vec<String> = lags.map(ToString::to_string).collect();
    let more = listed.len().saturating_sub(LAGS_LISTED);
    listed.truncate(LAGS_LISTED);
    if more > 0 {
        listed.push(format!("and {more} more partitions"));
    }
    listed
}
