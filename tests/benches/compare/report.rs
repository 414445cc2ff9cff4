//! Reports what was measured: a table on the terminal as soon as a cell is done, and files with JSON and
//! Markdown at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Table, TableStyle};
use ktables_tests::kafka::target;
use serde_json::{Value, json};

use crate::{Options, say};

/// The samples of a measure, one per round.
pub(crate) type Samples = Vec<f64>;

/// The meaning of a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ratio {
    /// The measure is a time. Twice as fast is 2.
    Speed,
    /// Twice as much is 2.
    Amount,
}

/// A comparison: rows with measures, which have samples.
#[derive(Debug)]
pub(crate) struct Cell {
    name: &'static str,
    about: String,
    /// The rows, in the order in which their first samples came.
    rows: Vec<(String, Vec<(&'static str, Samples)>)>,
}

impl Cell {
    pub(crate) fn new(name: &'static str, about: String) -> Self {
        Self { name, about, rows: Vec::new() }
    }

    /// Adds a sample of a row's measure.
    pub(crate) fn add_sample(&mut self, label: &str, measure: &'static str, value: f64) {
        let row = get_or_insert(&mut self.rows, label.to_owned());
        get_or_insert(row, measure).push(value);
    }

    /// Adds the ratio of a measure to the reference row's, for all rows and round by round.
    pub(crate) fn add_ratio(
        &mut self,
        name: &'static str,
        measure: &'static str,
        reference: &str,
        kind: Ratio,
    ) {
        self.add_ratio_for("", name, measure, reference, kind);
    }

    /// Adds the ratio for the rows whose labels begin with `rows`.
    pub(crate) fn add_ratio_for(
        &mut self,
        rows: &str,
        name: &'static str,
        measure: &'static str,
        reference: &str,
        kind: Ratio,
    ) {
        let reference = self.samples(reference, measure).to_vec();
        let labels = self.rows.iter().map(|(label, _)| label.clone());
        for label in labels.filter(|label| label.starts_with(rows)).collect::<Vec<_>>() {
            let own = self.samples(&label, measure).to_vec();
            for (own, reference) in own.iter().zip(&reference) {
                self.add_sample(
                    &label,
                    name,
                    if kind == Ratio::Speed { reference / own } else { own / reference },
                );
            }
        }
    }

    fn samples(&self, label: &str, measure: &str) -> &[f64] {
        let row = self.rows.iter().find(|(name, _)| name == label);
        let samples = row.and_then(|(_, row)| row.iter().find(|(name, _)| *name == measure));
        samples.map_or(&[], |(_, samples)| samples)
    }

    /// Returns a table of the medians, with the least and the greatest sample.
    fn table(&self, style: TableStyle) -> Table {
        let mut measures: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|(_, row)| row) {
            if !measures.contains(name) {
                measures.push(name);
            }
        }
        let mut table = Table::new();
        table.load_style(style).set_header([&[""], &measures[..]].concat());
        for (label, _) in &self.rows {
            let cells = measures.iter().map(|measure| format_samples(self.samples(label, measure)));
            table.add_row([label.clone()].into_iter().chain(cells));
        }
        table
    }

    fn json(&self) -> Value {
        let rows: BTreeMap<_, _> = self
            .rows
            .iter()
            .map(|(label, row)| (label, row.iter().cloned().collect::<BTreeMap<_, _>>()))
            .collect();
        json!({"about": self.about, "rows": rows})
    }
}

/// Returns the value of a name in a list. Inserts a default value if it is missing.
fn get_or_insert<N: PartialEq, T: Default>(list: &mut Vec<(N, T)>, name: N) -> &mut T {
    let index = list.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
        list.push((name, T::default()));
        list.len() - 1
    });
    &mut list[index].1
}

/// Formats the median, and the least and the greatest sample.
pub(crate) fn format_samples(samples: &[f64]) -> String {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match &sorted[..] {
        [] => "-".to_owned(),
        [only] => format_number(*only),
        [least, .., most] => {
            let (median, least, most) = (median(&sorted), *least, *most);
            format!("{} ({}-{})", format_number(median), format_number(least), format_number(most))
        }
    }
}

/// Returns the median of sorted samples.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Formats a number with three digits, or all digits before the point.
fn format_number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Describes the machine and the versions.
fn describe_machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    json!({
        "processor": line(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": line(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "kafka": ktables_broker::version(),
        "librdkafka": rdkafka::util::get_rdkafka_version().1,
        "ktables": env!("CARGO_PKG_VERSION"),
    })
}

/// Describes the run, for people.
fn describe_run(machine: &Value, options: &Options) -> String {
    let facts = machine.as_object().into_iter().flatten();
    let facts = facts.map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"')));
    let facts = facts.collect::<Vec<_>>().join(", ");
    format!("{} rounds; medians, with least and most. {facts}.", options.rounds)
}

/// The cells of a run.
#[derive(Debug)]
pub(crate) struct Report {
    options: Options,
    cells: Vec<Cell>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        Self { options: options.clone(), cells: Vec::new() }
    }

    /// Prints a cell, and keeps it for the report.
    pub(crate) fn add(&mut self, cell: Cell) {
        say(&format!("\n{}: {}\n{}\n", cell.name, cell.about, cell.table(UTF8_FULL_CONDENSED)));
        self.cells.push(cell);
    }

    /// Writes the report as JSON and as Markdown.
    pub(crate) fn write(&self) {
        let folder = target().join("bench");
        fs::create_dir_all(&folder).unwrap();
        let cells: BTreeMap<_, _> = self.cells.iter().map(|cell| (cell.name, cell.json())).collect();
        let json = json!({"machine": describe_machine(), "rounds": self.options.rounds, "quick": self.options.quick, "cells": cells});
        fs::write(folder.join("report.json"), format!("{json:#}\n")).unwrap();
        let mut markdown = format!("{}\n\n", describe_run(&describe_machine(), &self.options));
        for cell in &self.cells {
            // OK to ignore: writing to a string cannot fail.
            let _ =
                writeln!(markdown, "## {}\n\n{}\n\n{}\n", cell.name, cell.about, cell.table(ASCII_MARKDOWN));
        }
        fs::write(folder.join("report.md"), markdown).unwrap();
        say(&format!("written: {0}/report.json, {0}/report.md", folder.display()));
    }
}
