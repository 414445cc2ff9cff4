//! Compares two commits: both programs run each cell in turns, one round at a time, and what got worse is
//! reported. A cell that seems worse is measured again with more rounds, and only the second result counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use comfy_table::Table;
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use ktables_tests::kafka::target;
use serde_json::Value;

use crate::report::{Samples, format_samples, median};
use crate::{Options, say};

/// A median that is worse by this fraction may be noise.
const TOLERANCE: f64 = 0.05;

/// How many rounds a cell that seems worse is measured again.
const REPEAT_ROUNDS: usize = 9;

/// The result of one round of a cell by one program.
struct RoundResult {
    /// What the cell measures. Only equal texts are comparable.
    about: String,
    /// One value by row and measure.
    samples: BTreeMap<(String, String), f64>,
}

/// The samples of all rounds by row and measure: of this commit, and of the other one.
type PairedSamples = BTreeMap<(String, String), [Samples; 2]>;

/// Which values of a measure are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    Less,
    More,
    /// Shown, but not compared: the slowest of a few is a matter of luck.
    Tail,
}

/// Returns which values of a measure are better, or `None` if the measure does not depend on this project
/// alone.
fn better_values(row: &str, measure: &str) -> Option<Better> {
    let others = ["raw", "get: plain map", "Python", "GlobalKTable", "KCache"];
    if others.iter().any(|other| row.starts_with(other)) || measure.contains(" / ") {
        return None;
    }
    Some(match measure {
        "M records/s" => Better::More,
        tail if tail.starts_with("p99") || tail.starts_with("slowest") => Better::Tail,
        _ => Better::Less,
    })
}

/// Compares all cells with `other`, the same program of another commit. Skips those that only one of them
/// has.
pub(crate) fn run(other: &Path, options: &Options) {
    let this = std::env::current_exe().unwrap();
    // Each run of this program overwrites the report of an earlier one, which is restored in the end.
    let reports = [report_path(&this), report_path(&this).with_extension("md")];
    let earlier = reports.each_ref().map(|report| fs::read(report).ok());
    let (mut report, mut worse) = (String::new(), Vec::new());
    for cell in list_cells(&this, options) {
        let Some(mut sampled) = run_rounds(&[&this, other], &cell, options, options.rounds) else {
            say(&format!("{cell}: skipped, the other commit does not have it or measures something else"));
            continue;
        };
        if !worse_rows(&sampled).is_empty() {
            let worse = worse_rows(&sampled).join("; ");
            say(&format!("{cell}: measuring again, {REPEAT_ROUNDS} rounds, as this seems worse: {worse}"));
            sampled = run_rounds(&[&this, other], &cell, options, REPEAT_ROUNDS).unwrap();
        }
        say(&format!("\n{cell}\n{}", table(&sampled, UTF8_FULL_CONDENSED)));
        report += &format!("## {cell}\n\n{}\n\n", table(&sampled, ASCII_MARKDOWN));
        worse.extend(worse_rows(&sampled).into_iter().map(|row| format!("{cell}: {row}")));
    }
    let file = target().join("bench/against.md");
    fs::create_dir_all(file.with_file_name("")).unwrap();
    for (report, earlier) in reports.iter().zip(earlier) {
        if let Some(earlier) = earlier {
            fs::write(report, earlier).unwrap();
        }
    }
    fs::write(&file, report).unwrap();
    say(&format!("written: {}", file.display()));
    if worse.is_empty() {
        return say("nothing got worse");
    }
    say(&format!("worse than in the other commit:\n{}", worse.join("\n")));
    std::process::exit(1);
}

/// Returns the names of the selected cells.
fn list_cells(this: &Path, options: &Options) -> Vec<String> {
    let mut list = Command::new(this);
    let listed = list.arg("--list").args(arguments(options, None)).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn arguments(options: &Options, cell: Option<&str>) -> Vec<String> {
    let only = cell.map_or_else(|| options.only.clone(), |cell| vec![cell.to_owned()]);
    let quick = options.quick.then(|| "--quick".to_owned());
    only.into_iter().flat_map(|name| ["--only".to_owned(), name]).chain(quick).collect()
}

/// Runs both programs in turns. Returns `None` if one of them does not have the cell, or measures something
/// else in it.
fn run_rounds(programs: &[&Path; 2], cell: &str, options: &Options, rounds: usize) -> Option<PairedSamples> {
    let mut sampled = PairedSamples::new();
    let mut about: Option<String> = None;
    for round in 0..rounds {
        say(&format!("{cell}: round {} of {rounds}", round + 1));
        // The program that runs first changes in every round, too.
        for index in [round % 2, 1 - round % 2] {
            let measured = measure(programs[index], cell, options)?;
            if *about.get_or_insert(measured.about.clone()) != measured.about {
                return None;
            }
            for (name, value) in measured.samples {
                sampled.entry(name).or_default()[index].push(value);
            }
        }
    }
    sampled.retain(|_, samples| samples.iter().all(|samples| samples.len() == rounds));
    Some(sampled)
}

/// Runs one round of a cell.
fn measure(program: &Path, cell: &str, options: &Options) -> Option<RoundResult> {
    let mut command = Command::new(program);
    command.args(arguments(options, Some(cell))).args(["--rounds", "1"]).stdout(Stdio::null());
    assert!(command.status().unwrap().success(), "{command:?}");
    let report = fs::read_to_string(report_path(program)).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let cell = report["cells"].get(cell)?;
    let rows = cell["rows"].as_object()?;
    let mut measured = BTreeMap::new();
    for (row, measures) in rows {
        for (name, samples) in measures.as_object()? {
            let mut samples: Samples = samples.as_array()?.iter().filter_map(Value::as_f64).collect();
            samples.sort_by(f64::total_cmp);
            measured.insert((row.clone(), name.clone()), median(&samples));
        }
    }
    Some(RoundResult { about: cell["about"].as_str()?.to_owned(), samples: measured })
}

/// Returns the path of the report that a program in `target/release/deps` writes.
fn report_path(program: &Path) -> PathBuf {
    program.ancestors().nth(3).unwrap().join("bench/report.json")
}

/// Describes the measures that are worse in this commit.
fn worse_rows(sampled: &PairedSamples) -> Vec<String> {
    let worse = sampled.iter().filter(|((row, measure), [here, there])| {
        better_values(row, measure).is_some_and(|better| is_worse(better, here, there))
    });
    let describe = |((row, measure), [here, there]): (&(String, String), &[Samples; 2])| {
        format!("{row}, {measure}: {} against {}", format_samples(here), format_samples(there))
    };
    worse.map(describe).collect()
}

/// Returns true if the samples of `here` are worse: their median is worse by more than the tolerance, and the
/// two ranges do not overlap.
fn is_worse(better: Better, here: &Samples, there: &Samples) -> bool {
    let sorted = |samples: &Samples| {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let (here, there) = (sorted(here), sorted(there));
    let (Some(&least), Some(&most)) = (here.first(), here.last()) else { return false };
    match better {
        Better::Less => median(&here) > median(&there) * (1.0 + TOLERANCE) && least > there[there.len() - 1],
        Better::More => median(&here) < median(&there) * (1.0 - TOLERANCE) && most < there[0],
        Better::Tail => false,
    }
}

fn table(sampled: &PairedSamples, style: comfy_table::TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(["", "measure", "here", "there", ""]);
    for ((row, measure), [here, there]) in sampled {
        let verdict = match better_values(row, measure) {
            Some(better) if is_worse(better, here, there) => "worse",
            Some(Better::Less) if is_worse(Better::Less, there, here) => "better",
            Some(Better::More) if is_worse(Better::More, there, here) => "better",
            _ => "",
        };
        table.add_row([row, measure, &format_samples(here), &format_samples(there), verdict]);
    }
    table
}
