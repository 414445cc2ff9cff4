//! The metrics of components. Codecs of several tables from components with the same digest are counted together.

use std::collections::BTreeMap;

use prometheus_client::registry::{Registry, Unit};

use crate::codec::ComponentId;
use crate::config::Catalog;
use crate::serve::http::metrics::families::{Labels, Metrics};
use crate::serve::tables::ServedTable;
use crate::wasm::Usage;

/// Adds the metrics of the components that these tables use.
// Long because it lists them.
pub(super) fn add_components<'a>(
    registry: &mut Registry,
    catalog: &Catalog,
    tables: impl Iterator<Item = &'a ServedTable>,
) {
    let mut names = BTreeMap::new();
    let mut infos: BTreeMap<(String, String), Labels> = BTreeMap::new();
    for table in tables {
        let codecs = table.codecs();
        let scheme = codecs.group_scheme.as_ref().and_then(|scheme| scheme.component());
        let used = [codecs.key.component(), codecs.value.component(), scheme];
        for ComponentId { name, digest, origin, .. } in used.into_iter().flatten() {
            names.insert(digest.clone(), name.clone());
            let (reference, source) = origin.as_ref().map_or((String::new(), String::new()), |origin| {
                (origin.reference.clone(), origin.source.clone())
            });
            let of_table =
                [("table", table.name.clone()), ("component", name.clone()), ("digest", digest.clone())];
            let labels = of_table.into_iter().chain([("reference", reference), ("source", source)]).collect();
            infos.insert((table.name.clone(), digest.clone()), labels);
        }
    }
    let usages: Vec<(Labels, Usage)> = names
        .into_iter()
        .filter_map(|(digest, name)| {
            let usage = catalog.usage(&digest)?;
            Some((vec![("component", name), ("digest", digest)], usage))
        })
        .collect();
    let of = |value: fn(&Usage) -> f64| -> Vec<(Labels, f64)> {
        usages.iter().map(|(labels, usage)| (labels.clone(), value(usage))).collect()
    };
    let mut metrics = Metrics(registry);
    let infos: Vec<(Labels, f64)> = infos.into_values().map(|labels| (labels, 1.0)).collect();
    metrics.gauge(
        "ktables_component_info",
        "The components of tables, and where they came from",
        None,
        infos,
    );
    let mut counter = |name: &str, help: &str, unit, value| metrics.counter(name, help, unit, of(value));
    counter("ktables_component_calls", "Calls of the component", None, |usage| usage.calls as f64);
    counter("ktables_component_items", "Keys, values and pairs that were passed to it", None, |usage| {
        usage.items as f64
    });
    counter(
        "ktables_component_input",
        "Bytes of keys and values that were passed to it",
        Some(Unit::Bytes),
        |usage| usage.bytes_in as f64,
    );
    counter("ktables_component_output", "Bytes of its answers", Some(Unit::Bytes), |usage| {
        usage.bytes_out as f64
    });
    counter(
        "ktables_component_call_time",
        "How long its calls took, with the starts of instances for them",
        Some(Unit::Seconds),
        |usage| usage.call_time.as_secs_f64(),
    );
    let help = "Instances that were started";
    counter("ktables_component_started_instances", help, None, |usage| usage.started as f64);
    counter("ktables_component_compilations", "How often it was compiled", None, |usage| {
        usage.compilations as f64
    });
    let help = "How long its compilations took";
    counter("ktables_component_compile_time", help, Some(Unit::Seconds), |usage| {
        usage.compile_time.as_secs_f64()
    });
    let help = "How often its compiled code was in the cache";
    counter("ktables_component_cache_hits", help, None, |usage| usage.cache_hits as f64);
    let dropped = usages.iter().flat_map(|(labels, usage)| {
        let causes = [("fault", usage.dropped_for_faults), ("recycled", usage.recycled)];
        causes.map(|(cause, count)| (with(labels, [("cause", cause)]), count as f64))
    });
    let help = "Instances that another one has to replace: after a fault, or because of memory, calls or age";
    metrics.counter("ktables_component_dropped_instances", help, None, dropped);
    let rejects = usages.iter().flat_map(|(labels, usage)| {
        usage.rejects.iter().map(|(kind, count)| (with(labels, [("kind", kind)]), *count as f64))
    });
    let help = "Keys and values that it rejected, by kind, each time that it was called for them";
    metrics.counter("ktables_component_rejects", help, None, rejects);
    let faults = usages.iter().flat_map(|(labels, usage)| {
        let count = |((kind, trap), count): (&(&'static str, String), &u64)| {
            (with(labels, [("kind", kind), ("trap", trap)]), *count as f64)
        };
        usage.faults.iter().map(count).collect::<Vec<_>>()
    });
    metrics.counter(
        "ktables_component_faults",
        "Calls over which it faulted, by kind and trap",
        None,
        faults,
    );
    let help = "The most memory that one of its instances used after a call";
    metrics.gauge(
        "ktables_component_peak_memory",
        help,
        Some(Unit::Bytes),
        of(|usage| usage.peak_memory as f64),
    );
}

fn with<const N: usize>(labels: &Labels, more: [(&'static str, &str); N]) -> Labels {
    labels.iter().cloned().chain(more.map(|(name, value)| (name, value.to_owned()))).collect()
}
