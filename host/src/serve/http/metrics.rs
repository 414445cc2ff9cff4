//! Metrics in the text format of Prometheus. They are computed when they are asked for, and only of tables that the
//! caller may read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};
use futures_util::future::join_all;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::log::{Offset, Partition};
use crate::memory::resident_bytes;
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::problem::Problem;
use crate::serve::server::Server;
use crate::serve::tables::ServedTable;
use crate::table::{Stats, Status};

/// How long the log may take to return end offsets. Without them, the lag is left out.
const LAG_TIMEOUT: Duration = Duration::from_secs(1);

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<f64, AtomicU64>>;

/// All statuses of a table.
const STATUSES: [&str; 5] = ["loading", "caught_up", "degraded", "failed", "stopped"];

/// Returns all metrics.
pub(super) async fn metrics(call: Call) -> Result<Response<Body>, Problem> {
    call.query(&[])?;
    let tables = call.server.tables.load_full();
    let readable = (*tables).iter().flatten().filter(|(name, _)| call.caller.may(Role::Read, name));
    let readable: Vec<Arc<ServedTable>> = readable.map(|(_, table)| table.clone()).collect();
    let ends = join_all(readable.iter().map(|table| end_offsets(table))).await;
    let mut registry = Registry::default();
    add_tables(&mut registry, &readable, &ends);
    add_server(&mut registry, &call.server);
    add_process(&mut registry, call.server.started);
    let mut text = String::new();
    // OK because writing to a string never fails.
    encode(&mut text, &registry).expect("a string");
    let mut response = Response::new(Body::from(text));
    let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

async fn end_offsets(table: &ServedTable) -> Vec<(Partition, Offset)> {
    let topic = table.table.topic();
    let ends = tokio::time::timeout(LAG_TIMEOUT, table.source.log.end_offsets(&topic)).await;
    ends.ok().and_then(Result::ok).unwrap_or_default()
}

/// Registers metrics, and sets their values.
struct Metrics<'a>(&'a mut Registry);

impl Metrics<'_> {
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Gauges::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, family),
            None => self.0.register(name, help, family),
        }
    }

    fn counter(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Counters::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }
}

/// Adds the metrics of tables.
// Long because it lists them.
fn add_tables(registry: &mut Registry, tables: &[Arc<ServedTable>], ends: &[Vec<(Partition, Offset)>]) {
    let mut metrics = Metrics(registry);
    let all: Vec<(&ServedTable, Status, Stats)> =
        tables.iter().map(|table| (&**table, table.table.status(), table.table.stats())).collect();
    let label = |table: &ServedTable| vec![("table", table.name.clone())];
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
        of(|stats| stats.records as f64),
    );
    metrics.counter("ktables_table_tombstones", "Tombstones among them", of(|stats| stats.tombstones as f64));
    let rejects = all.iter().flat_map(|(table, _, stats)| {
        stats.rejects.iter().map(|(kind, count)| {
            (vec![("table", table.name.clone()), ("kind", kind.name().to_owned())], *count as f64)
        })
    });
    metrics.counter("ktables_table_rejected_records", "Records that were rejected, by kind", rejects);
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
    let watchers =
        all.iter().map(|(table, _, _)| (label(table), table.watchers.load(Ordering::Relaxed) as f64));
    metrics.gauge("ktables_table_watchers", "Open watches of the table", None, watchers);
}

fn add_server(registry: &mut Registry, server: &Server) {
    let http = &server.http;
    registry.register("ktables_http_requests", "Requests that were answered", http.answers.clone());
    registry.register_with_unit(
        "ktables_http_request_duration",
        "The time until an answer begins",
        Unit::Seconds,
        http.times.clone(),
    );
    let limited = "Requests that were refused because there were too many";
    registry.register("ktables_http_limited_requests", limited, http.limited.clone());
    let mut metrics = Metrics(registry);
    let (failed, refused) = (server.failed_attempts.count(), server.connections.refused());
    let help = "Tokens and certificates that were not valid";
    metrics.counter("ktables_http_failed_attempts", help, one(failed as f64));
    let help = "Connections that were refused because there were too many";
    metrics.counter("ktables_http_refused_connections", help, one(refused as f64));
    let settings = &server.settings;
    let limits = [
        ("connections", settings.max_connections, server.connections.open()),
        ("requests", settings.max_requests, settings.max_requests - server.requests.available_permits()),
        ("watchers", settings.max_watchers, settings.max_watchers - server.watchers.available_permits()),
    ];
    let labels = |name: &str| vec![("limit", name.to_owned())];
    let values = limits.map(|(name, limit, _)| (labels(name), limit as f64));
    metrics.gauge("ktables_limit", "How much there may be", None, values);
    let values = limits.map(|(name, _, used)| (labels(name), used as f64));
    metrics.gauge("ktables_limit_usage", "How much there is", None, values);
}

fn add_process(registry: &mut Registry, started: SystemTime) {
    let mut metrics = Metrics(registry);
    if let Some(bytes) = resident_bytes() {
        let help = "The resident memory of the process";
        metrics.gauge("process_resident_memory", help, Some(Unit::Bytes), one(bytes as f64));
    }
    let time = cpu_time::ProcessTime::now().as_duration().as_secs_f64();
    metrics.counter("process_cpu_seconds", "The processor time of the process", one(time));
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    metrics.gauge("process_open_fds", "The open files of the process", None, one(files as f64));
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "When the process began, since 1970";
    metrics.gauge("process_start_time", help, Some(Unit::Seconds), one(started));
}

/// Returns a value without labels.
fn one(value: f64) -> [(Labels, f64); 1] {
    [(Labels::new(), value)]
}
