//! The metrics of tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use prometheus_client::registry::{Registry, Unit};

use crate::log::{Offset, Partition};
use crate::serve::http::metrics::families::{Labels, Metrics};
use crate::serve::tables::ServedTable;
use crate::table::{Stats, Status};

/// All statuses of a table.
const STATUSES: [&str; 5] = ["loading", "caught_up", "degraded", "failed", "stopped"];

fn label(table: &ServedTable) -> Labels {
    vec![("table", table.name.clone())]
}

/// Adds the metrics of tables.
// Long because it lists them.
pub(super) fn add_tables(
    registry: &mut Registry,
    tables: &[Arc<ServedTable>],
    ends: &[Vec<(Partition, Offset)>],
) {
    let mut metrics = Metrics(registry);
    let all: Vec<(&ServedTable, Status, Stats)> =
        tables.iter().map(|table| (&**table, table.table.status(), table.table.stats())).collect();
    let of = |value: fn(&Stats) -> f64| -> Vec<(Labels, f64)> {
        all.iter().map(|(table, _, stats)| (label(table), value(stats))).collect()
    };
    let statuses = all.iter().flat_map(|(table, status, _)| {
        STATUSES.map(|name| {
            (
                vec![("table", table.name.clone()), ("status", name.to_owned())],
                f64::from(name == status.name()),
            )
        })
    });
    metrics.gauge("ktables_table_status", "1 for the status of the table", None, statuses);
    let infos = all.iter().map(|(table, _, _)| {
        let snapshot = table.table.snapshot();
        let labels = [
            ("table", table.name.clone()),
            ("topic", table.source.topic().to_owned()),
            ("fingerprint", snapshot.fingerprint().to_owned()),
        ];
        (labels.to_vec(), 1.0)
    });
    metrics.gauge(
        "ktables_table_info",
        "The topic and the fingerprint of the codecs of the table",
        None,
        infos,
    );
    metrics.gauge("ktables_table_entries", "Entries in the table", None, of(|stats| stats.entries as f64));
    metrics.gauge("ktables_table_groups", "Groups in the table", None, of(|stats| stats.groups as f64));
    metrics.gauge(
        "ktables_table_payload",
        "Keys and values in the table",
        Some(Unit::Bytes),
        of(|stats| stats.payload_bytes as f64),
    );
    metrics.counter(
        "ktables_table_applied_records",
        "Records that the table has applied",
        None,
        of(|stats| stats.records as f64),
    );
    metrics.counter(
        "ktables_table_tombstones",
        "Tombstones among them",
        None,
        of(|stats| stats.tombstones as f64),
    );
    let rejects = all.iter().flat_map(|(table, _, stats)| {
        stats.rejects.iter().map(|(kind, count)| {
            (vec![("table", table.name.clone()), ("kind", kind.name().to_owned())], *count as f64)
        })
    });
    metrics.counter("ktables_table_rejected_records", "Records that were rejected, by kind", None, rejects);
    let staleness = all.iter().map(|(table, status, stats)| {
        let stale = stats.stale_since.and_then(|since| SystemTime::now().duration_since(since).ok());
        let seconds =
            if matches!(status, Status::CaughtUp) { 0.0 } else { stale.unwrap_or_default().as_secs_f64() };
        (label(table), seconds)
    });
    metrics.gauge(
        "ktables_table_staleness",
        "For how long the table has not been caught up",
        Some(Unit::Seconds),
        staleness,
    );
    let lags = all.iter().zip(ends).filter(|(_, ends)| !ends.is_empty()).map(|((table, _, stats), ends)| {
        let lag = |&(partition, end): &(Partition, Offset)| {
            let progress = stats.partitions.iter().find(|progress| progress.partition == partition);
            progress.map_or(0, |progress| (end - progress.position).max(0))
        };
        (label(table), ends.iter().map(lag).sum::<Offset>() as f64)
    });
    metrics.gauge(
        "ktables_table_lag_records",
        "Records in the topic that the table has not applied",
        None,
        lags,
    );
    let generations = all.iter().map(|(table, _, stats)| (label(table), stats.generation as f64));
    let help =
        "The number of the generation, which grows when the topic was re-created or the codecs were swapped";
    metrics.gauge("ktables_table_generation", help, None, generations);
    let own = all.iter().map(|(table, ..)| (label(table), f64::from(table.has_configured_codecs())));
    let help = "1 if the codecs are those of the configuration, 0 after a swap through the API";
    metrics.gauge("ktables_table_configured_codecs", help, None, own);
    let latencies = || all.iter().map(|(table, ..)| (label(table), table.table.latencies()));
    metrics.histogram(
        "ktables_table_apply_latency",
        "From the delivery of a batch of records by the log until they are visible",
        latencies().map(|(labels, latencies)| (labels, latencies.apply)),
    );
    metrics.histogram(
        "ktables_table_barrier_latency",
        "How long barriers took that found the table fresh",
        latencies().map(|(labels, latencies)| (labels, latencies.barrier)),
    );
    let watchers =
        all.iter().map(|(table, _, _)| (label(table), table.watchers.load(Ordering::Relaxed) as f64));
    metrics.gauge("ktables_table_watchers", "Open watches of the table", None, watchers);
}
