//! Families of metrics whose values are computed when they are asked for.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::table::Latency;

/// The names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;

type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<f64, AtomicU64>>;

/// Registers metrics, and sets their values.
pub(super) struct Metrics<'a>(pub(super) &'a mut Registry);

impl Metrics<'_> {
    pub(super) fn gauge(
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

    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Counters::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, family),
            None => self.0.register(name, help, family),
        }
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, Latency)>,
    ) {
        let values = values.into_iter().collect();
        self.0.register_collector(Box::new(Histograms { name, help, values }));
    }
}

/// Histograms of durations that were counted elsewhere.
#[derive(Debug)]
struct Histograms {
    name: &'static str,
    help: &'static str,
    values: Vec<(Labels, Latency)>,
}

impl Collector for Histograms {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let unit = Unit::Seconds;
        let mut metric =
            encoder.encode_descriptor(self.name, self.help, Some(&unit), MetricType::Histogram)?;
        for (labels, latency) in &self.values {
            let bound = |bound: Duration| match bound {
                Duration::MAX => f64::INFINITY,
                bound => bound.as_secs_f64(),
            };
            let buckets: Vec<(f64, u64)> =
                latency.counts.iter().map(|&(upper, count)| (bound(upper), count)).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let total = latency.total.as_secs_f64();
            metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(total, count, &buckets, None)?;
        }
        Ok(())
    }
}
