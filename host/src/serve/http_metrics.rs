//! Counts requests and their times.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// The upper bounds of the buckets of times, in seconds.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Counts requests and their times.
#[derive(Debug)]
pub(super) struct HttpMetrics {
    /// Requests that were answered, by method and status.
    pub(super) answers: Family<[(&'static str, String); 2], Counter>,
    /// The time until an answer begins, in seconds.
    pub(super) times: Histogram,
    /// Requests that were refused because too many were being answered.
    pub(super) limited: Counter<u64, AtomicU64>,
}

impl HttpMetrics {
    pub(super) fn new() -> Self {
        Self { answers: Family::default(), times: Histogram::new(BUCKETS), limited: Counter::default() }
    }

    /// Counts a request that was answered.
    pub(super) fn count(&self, method: &Method, status: StatusCode, time: Duration) {
        let labels = [("method", name(method).to_owned()), ("status", status.as_str().to_owned())];
        self.answers.get_or_create(&labels).inc();
        self.times.observe(time.as_secs_f64());
    }
}

/// Returns the name of a method. Clients can invent methods, and a label must not have any number of values.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
