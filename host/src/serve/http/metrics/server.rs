//! The metrics of the server and of its process.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::registry::{Registry, Unit};

use crate::memory::resident_bytes;
use crate::serve::http::metrics::families::{Labels, Metrics};
use crate::serve::server::{LastReload, Server};

/// Adds the metrics of HTTP and of the limits.
pub(super) fn add_server(registry: &mut Registry, server: &Server) {
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
    metrics.counter("ktables_http_failed_attempts", help, None, one(failed as f64));
    let help = "Connections that were refused because there were too many";
    metrics.counter("ktables_http_refused_connections", help, None, one(refused as f64));
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

/// Adds how the configuration was reloaded last.
pub(super) fn add_reload(registry: &mut Registry, reload: LastReload) {
    let mut metrics = Metrics(registry);
    let help = "Whether the configuration was reloaded successfully, the last time";
    metrics.gauge("ktables_config_last_reload_successful", help, None, one(f64::from(reload.is_successful)));
    let help = "When the configuration was read successfully for the last time, since 1970";
    let at = seconds(reload.succeeded_at);
    metrics.gauge("ktables_config_last_reload_success_timestamp", help, Some(Unit::Seconds), one(at));
}

/// Adds the metrics of the process.
pub(super) fn add_process(registry: &mut Registry, started: SystemTime) {
    let mut metrics = Metrics(registry);
    if let Some(bytes) = resident_bytes() {
        let help = "The resident memory of the process";
        metrics.gauge("process_resident_memory", help, Some(Unit::Bytes), one(bytes as f64));
    }
    let time = cpu_time::ProcessTime::now().as_duration().as_secs_f64();
    metrics.counter("process_cpu", "The processor time of the process", Some(Unit::Seconds), one(time));
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    metrics.gauge("process_open_fds", "The open files of the process", None, one(files as f64));
    let help = "When the process began, since 1970";
    metrics.gauge("process_start_time", help, Some(Unit::Seconds), one(seconds(started)));
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Returns a value without labels.
fn one(value: f64) -> [(Labels, f64); 1] {
    [(Labels::new(), value)]
}
