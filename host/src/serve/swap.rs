//! A swap of codecs: the topic is loaded with the new codec beside the served one, both are compared, and a gate decides.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::codec::Codecs;
use crate::config::{Catalog, CodecNames, ConfigError};
use crate::escape::escape_name;
use crate::serve::swaps::{Back, BeforeAfter, SwapReport, SwapState};
use crate::serve::tables::ServedTable;
use crate::table::{
    CompareLettersError, DeadLetterComparison, Difference, PreparedSwap, Snapshot, Stats, TableError,
};
use crate::wasm::{WasmError, digest_of};

/// How long both decodings are waited for to reach the same positions before they are compared.
const ALIGN_TIMEOUT: Duration = Duration::from_secs(5);

/// How often their positions are compared.
const ALIGN_INTERVAL: Duration = Duration::from_millis(5);

/// How long dead letters are decoded.
const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a decoding may take to reach the served one, once it is to be served.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the decoding that was kept for going back may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

impl NewCodecs {
    /// Describes the codecs in a log.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Component { part, name, bytes } => {
                format!("{part} codec `{name}` {}", digest_of(bytes))
            }
            Self::Named(CodecNames { key, value, group }) => {
                let names = [("key", key), ("value", value), ("group", group)];
                let named = names.into_iter().filter_map(|(part, name)| {
                    name.as_ref().map(|name| format!("{part} codec `{}`", escape_name(name)))
                });
                named.collect::<Vec<_>>().join(", ")
            }
            Self::Loaded(codecs) => format!("the codecs of the configuration, {}", codecs.fingerprint()),
        }
    }
}

/// What a swap replaces.
#[derive(Debug, Clone)]
pub(super) enum NewCodecs {
    /// A component in place of one codec, and the name that logs and metrics give it.
    Component { part: CodecPart, name: String, bytes: Vec<u8> },
    /// Codecs of the configuration.
    Named(CodecNames),
    /// Codecs that were loaded with another configuration.
    Loaded(Codecs),
}

/// A codec of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodecPart {
    Key,
    Value,
    Group,
}

impl fmt::Display for CodecPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Group => "group",
        })
    }
}

/// Whether a swap that differs is made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gate {
    /// Nothing is served: the report is all.
    pub(super) is_trial: bool,
    /// It is made whatever it changes.
    pub(super) is_forced: bool,
    /// How many keys it may reject that are not rejected now, and how many it may change otherwise.
    pub(super) max_new_rejects: u64,
    pub(super) max_changed: Option<u64>,
}

impl Gate {
    /// Returns why a swap is not made; `None` if it is.
    fn refuse(&self, difference: &Difference, has_rejects: bool) -> Option<String> {
        // A record whose key is rejected leaves no trace of its key, so the key is only gone.
        let removed = if has_rejects { difference.removed } else { 0 };
        let (rejects, changes) = (difference.newly_rejected + removed, difference.changes());
        if self.is_forced {
            return None;
        }
        if difference.is_inconclusive() {
            let skipped = difference.skipped;
            return Some(format!(
                "{skipped} keys were written while they were compared, which is most of them: try again"
            ));
        }
        if rejects > self.max_new_rejects {
            let allowed = self.max_new_rejects;
            return Some(format!(
                "{rejects} keys are newly rejected or gone, and max_new_rejects is {allowed}"
            ));
        }
        let allowed = self.max_changed?;
        (changes > allowed).then(|| format!("{changes} keys change, and max_changed is {allowed}"))
    }
}

/// Why a swap failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SwapError {
    #[error(transparent)]
    Codec(#[from] ConfigError),
    #[error(transparent)]
    Component(#[from] WasmError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("a trial would end the way back to the codecs before the last swap")]
    WayBack,
    #[error("the table is served with these codecs already")]
    Same,
}

/// Runs a swap, and reports what it does in the table. Its outcome is in the report, too.
pub(super) async fn run(
    catalog: Arc<Catalog>,
    table: Arc<ServedTable>,
    new: NewCodecs,
    gate: Gate,
    keep: Duration,
) {
    // The report says that the swap has ended even if it panics: callers poll it until then.
    let result = AssertUnwindSafe(swap(catalog, &table, new, gate, keep)).catch_unwind().await;
    let failure = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("it panicked: this is a defect of ktables".to_owned()),
    };
    if let Some(reason) = failure {
        table.swaps.update(|report| {
            report.state = SwapState::Failed;
            report.reason = Some(reason);
        });
    }
    if let Some(report) = table.swaps.report() {
        let reason = report.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let (outcome, table) = (report.state.name(), &*table.name);
        if matches!(report.state, SwapState::Refused | SwapState::Failed) {
            tracing::warn!(
                target: "ktables::audit",
                table,
                "the swap has ended, and the codecs before it are served: {outcome}{reason}"
            );
        } else {
            tracing::info!(target: "ktables::audit", table, "the swap has ended: {outcome}{reason}");
        }
    }
}

async fn swap(
    catalog: Arc<Catalog>,
    table: &Arc<ServedTable>,
    new: NewCodecs,
    gate: Gate,
    keep: Duration,
) -> Result<(), SwapError> {
    let codecs = load(catalog, table.clone(), new).await?;
    table.swaps.update(|report| report.fingerprint_after = Some(codecs.fingerprint()));
    if codecs.fingerprint() == table.codecs().fingerprint() {
        return Err(SwapError::Same);
    }
    if gate.is_trial && table.swaps.back_until().is_some() {
        return Err(SwapError::WayBack);
    }
    // A table has two decodings at most, so this ends the way back.
    drop(table.swaps.take_back());
    let prepared = prepare(table, &codecs).await?;
    table.swaps.update(|report| report.state = SwapState::Comparing);
    // First, because it may take long, and the gate decides about contents that are as new as possible.
    let dead_letters = table.table.compare_dead_letters(&codecs, DEAD_LETTER_TIMEOUT).await;
    let (before, after) = align(table, &prepared).await?;
    let compared = tokio::task::spawn_blocking(move || Difference::new(&before, &after)).await;
    // OK because the task is never cancelled: the error is a panic, which continues here.
    let difference = compared.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let (before, after) = (table.table.stats(), prepared.stats());
    let rejects = |stats: &Stats| stats.rejects.values().sum::<u64>();
    let has_rejects = after.as_ref().is_some_and(|after| rejects(after) > 0);
    let refusal = gate.refuse(&difference, has_rejects);
    table.swaps.update(|report| report.describe(difference, dead_letters, &before, after.as_ref()));
    if let Some(reason) = refusal {
        table.swaps.update(|report| {
            report.state = SwapState::Refused;
            report.reason = Some(reason);
        });
        return Ok(());
    }
    if gate.is_trial {
        table.swaps.update(|report| report.state = SwapState::Tried);
        return Ok(());
    }
    if table.swaps.begin_commit() {
        commit(table, prepared, codecs, keep).await?;
        table.swaps.update(|report| report.state = SwapState::Done);
    }
    Ok(())
}

/// Serves another decoding, and keeps the one that was served for a while.
async fn commit(
    table: &Arc<ServedTable>,
    prepared: PreparedSwap,
    codecs: Codecs,
    keep: Duration,
) -> Result<(), TableError> {
    let old = table.codecs();
    let committed = tokio::time::timeout(COMMIT_TIMEOUT, prepared.commit()).await;
    let late = |_| Err(TableError::Loading { topic: table.source.topic().to_owned() });
    let prepared = match committed.unwrap_or_else(late) {
        Ok(prepared) => prepared,
        // It may be served nevertheless, with no way back.
        Err(_) if table.table.snapshot().fingerprint() == codecs.fingerprint() => {
            table.set_codecs(codecs).await;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    table.set_codecs(codecs).await;
    table.swaps.set_back(Back { prepared, codecs: old, until: Instant::now() + keep });
    // A table that is removed meanwhile must not be kept.
    let table = Arc::downgrade(table);
    tokio::spawn(async move {
        tokio::time::sleep(keep).await;
        if let Some(table) = table.upgrade() {
            table.swaps.expire_back();
        }
    });
    Ok(())
}

/// Serves the decoding again that was served before the last swap, and reports that in the table.
pub(super) async fn go_back(table: Arc<ServedTable>, keep: Duration) {
    let Some(back) = table.swaps.take_back() else {
        table.swaps.update(|report| {
            report.state = SwapState::Failed;
            report.reason = Some("the codecs before the last swap are no longer kept".to_owned());
        });
        return;
    };
    let fingerprint = back.codecs.fingerprint();
    table.swaps.update(|report| report.fingerprint_after = Some(fingerprint));
    let result = commit(&table, back.prepared, back.codecs, keep).await;
    table.swaps.update(|report| match result {
        Ok(()) => report.state = SwapState::Done,
        Err(error) => {
            report.state = SwapState::Failed;
            report.reason = Some(error.to_string());
        }
    });
}

/// Loads the codecs of a swap. Blocks a thread while a component is compiled.
async fn load(catalog: Arc<Catalog>, table: Arc<ServedTable>, new: NewCodecs) -> Result<Codecs, SwapError> {
    let loaded = tokio::task::spawn_blocking(move || {
        let mut codecs = table.codecs();
        let topic = table.source.topic();
        match new {
            NewCodecs::Loaded(loaded) => codecs = loaded,
            NewCodecs::Named(names) => {
                let loaded = catalog.load_other_codecs(&table.name, &names)?;
                // The others stay as they are served, which an earlier swap may have changed.
                if names.key.is_some() {
                    codecs.key = loaded.key;
                }
                if names.value.is_some() {
                    codecs.value = loaded.value;
                }
                if names.group.is_some() {
                    codecs.group_scheme = loaded.group_scheme;
                }
            }
            NewCodecs::Component { part, name, bytes } => {
                // A component takes over the configuration, the limits and the schema registry of the one that it replaces,
                // as they are in the file that was read last.
                let settings = catalog.settings_of(&table.name, |table| match part {
                    CodecPart::Key => table.key_codec.as_ref(),
                    CodecPart::Value => table.value_codec.as_ref(),
                    CodecPart::Group => table.group_scheme.as_ref(),
                });
                let component = catalog.load_bytes(&table.name, &name, bytes, settings.as_ref())?;
                let config = settings.as_ref().map_or("{}", |settings| settings.config.as_str());
                match part {
                    CodecPart::Key => codecs.key = component.key_codec(topic, config)?,
                    CodecPart::Value => codecs.value = component.value_codec(topic, config)?,
                    CodecPart::Group => codecs.group_scheme = Some(component.group_scheme(topic, config)?),
                }
            }
        }
        Ok(codecs)
    });
    // OK because the task is never cancelled: the error is a panic, which continues here.
    loaded.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Loads the topic with other codecs. The decoding that was kept for going back may not have ended yet.
async fn prepare(table: &ServedTable, codecs: &Codecs) -> Result<PreparedSwap, TableError> {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        match table.table.prepare_swap(codecs.clone()).await {
            Err(TableError::Loading { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(ALIGN_INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// Returns the contents of both decodings at the same positions, or as near as they come under many writes.
async fn align(table: &ServedTable, prepared: &PreparedSwap) -> Result<(Snapshot, Snapshot), TableError> {
    let deadline = Instant::now() + ALIGN_TIMEOUT;
    loop {
        let (before, after) = (table.table.snapshot(), prepared.snapshot()?);
        if before.positions().eq(after.positions()) || Instant::now() >= deadline {
            return Ok((before, after));
        }
        tokio::time::sleep(ALIGN_INTERVAL).await;
    }
}

impl SwapReport {
    /// Adds how both decodings differ.
    fn describe(
        &mut self,
        difference: Difference,
        dead_letters: Option<Result<DeadLetterComparison, CompareLettersError>>,
        before: &Stats,
        after: Option<&Stats>,
    ) {
        let rejected = |stats: &Stats| stats.rejects.values().sum::<u64>();
        let cost = |stats: &Stats| {
            let nanos = u64::try_from(stats.catch_up?.as_nanos()).ok()?;
            nanos.checked_div(stats.replayed)
        };
        if let Some(after) = after {
            self.rejected = Some(BeforeAfter { before: rejected(before), after: rejected(after) });
            self.load_ns_per_record = Some(BeforeAfter { before: cost(before), after: cost(after) });
            self.records = Some(BeforeAfter { before: before.records, after: after.records });
            self.from_checkpoint = after.checkpoint.as_ref().map(|checkpoint| checkpoint.loaded);
            let unused = after.checkpoint.as_ref().and_then(|checkpoint| checkpoint.unused.as_ref());
            self.notes.extend(unused.map(|reason| format!("the topic was replayed: {reason}").into()));
        }
        match dead_letters {
            Some(Ok(compared)) => self.dead_letters = Some(compared),
            Some(Err(error)) => {
                self.notes.push(format!("the dead letters were not compared: {error}").into())
            }
            None => {}
        }
        if difference.changes() + difference.newly_rejected > 0 {
            self.notes.push("the codec that was served before may reject what is written from now on".into());
        }
        self.difference = Some(difference);
    }
}
