//! Repeats the tests that inject faults, and tallies their results in a file. Earlier runs count, so a soak
//! can be run in parts.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::guests::build_rust_guests;
use crate::run::{Outcome, build_program, cargo, command, output, say, target};
use crate::setup::setup;

/// Modules of the suite in which each test is a kind of fault.
const MODULES: [&str; 1] = ["faults::"];

/// Further tests that are kinds of faults.
const TESTS: [&str; 4] = [
    "checkpoints::a_full_disk_ends_the_checkpoint_but_not_the_table",
    "checkpoints::a_process_killed_at_any_time_leaves_a_sound_checkpoint_or_none",
    "checkpoints::damage_in_any_block_is_found_and_the_topic_replayed",
    "expiry::setting_the_clock_hides_and_revives_entries::on_kafka",
];

/// The counts that tests print, in the order of the file's columns.
const COUNTS: [&str; 6] = ["faults", "acknowledged", "lost", "doubled", "wrong", "false_claims"];

/// How often each kind is run by default.
const TIMES: u64 = 20;

/// The results of one kind of fault.
#[derive(Debug, Default, Clone)]
struct KindResults {
    runs: u64,
    failed: u64,
    counts: [u64; COUNTS.len()],
}

/// The options of `cargo xtask soak`.
#[derive(Debug)]
struct Options {
    only: Vec<String>,
    times: u64,
    /// Ignores the results of earlier runs.
    start_over: bool,
}

impl Options {
    fn parse(args: &[String]) -> Outcome<Self> {
        let mut options = Self { only: Vec::new(), times: TIMES, start_over: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--only" => options.only.push(value()?.clone()),
                "--anew" => options.start_over = true,
                "--times" => {
                    options.times = value()?.parse().map_err(|error| format!("--times: {error}"))?;
                }
                _ => return Err(format!("unknown argument `{arg}`: use --only KIND, --times N, --anew")),
            }
        }
        Ok(options)
    }
}

/// Runs each kind until the tally has the requested number of runs of it. The kinds take turns.
pub(crate) fn soak(args: &[String]) -> Outcome {
    let options = Options::parse(args)?;
    setup()?;
    build_rust_guests()?;
    let suite = build_program("suite", &mut cargo(["test", "--release", "--workspace", "--test", "suite"]))?;
    let listed = output(command(&suite).arg("--list"))?;
    let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let is_kind = |test: &&str| MODULES.iter().any(|module| test.starts_with(module)) || TESTS.contains(test);
    let is_selected =
        |test: &&str| options.only.is_empty() || options.only.iter().any(|only| test.contains(only.as_str()));
    let kinds: Vec<&str> = tests.filter(is_kind).filter(is_selected).collect();
    if kinds.is_empty() {
        return Err(format!(
            "no kind of fault matches --only: the kinds are all tests of faults::, and {}",
            TESTS.join(", ")
        ));
    }
    if options.start_over && tally_file().exists() {
        let before = tally_file().with_extension("before.tsv");
        fs::rename(tally_file(), &before)
            .map_err(|error| format!("cannot rename the tally to {}: {error}", before.display()))?;
    }
    let mut tally = Tally::read()?;
    say(&format!(
        "running {} kinds, {} times each; the tally is in {}",
        kinds.len(),
        options.times,
        tally_file().display()
    ));
    for round in 1..=options.times {
        for kind in &kinds {
            if tally.results(kind).runs < round {
                tally.add(kind, run_once(&suite, kind, round)?)?;
            }
        }
    }
    tally.print_summary(&kinds)
}

/// Runs a kind once. Returns its counts, or `None` if it failed.
fn run_once(suite: &PathBuf, kind: &str, round: u64) -> Outcome<Option<[u64; COUNTS.len()]>> {
    let run = command(suite).args(["--exact", kind, "--nocapture"]).output();
    let run = run.map_err(|error| format!("cannot run {}: {error}", suite.display()))?;
    let stdout = String::from_utf8_lossy(&run.stdout);
    let mut counts = [0; COUNTS.len()];
    for line in stdout.lines().filter_map(|line| line.strip_prefix("TALLY ")) {
        let values = line.split(' ').filter_map(|word| word.split_once('='));
        for (name, value) in values {
            if let Some(index) = COUNTS.iter().position(|known| *known == name) {
                counts[index] += value.parse::<u64>().unwrap_or(0);
            }
        }
    }
    if run.status.success() {
        say(&format!("round {round}: {kind}"));
        return Ok(Some(counts));
    }
    let log = tally_file().with_file_name(format!("{}-{round}.log", kind.replace("::", "-")));
    let text = [run.stdout, run.stderr].concat();
    fs::write(&log, text).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    say(&format!("round {round}: {kind} FAILED, see {}", log.display()));
    Ok(None)
}

/// Returns the path of the tally.
fn tally_file() -> PathBuf {
    target().join("soak/tally.tsv")
}

/// The results by kind.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, KindResults>);

impl Tally {
    fn read() -> Outcome<Self> {
        let text = fs::read_to_string(tally_file()).unwrap_or_default();
        let mut tally = Self::default();
        for line in text.lines().skip(1).filter(|line| !line.starts_with("all\t")) {
            let mut fields = line.split('\t');
            let name = fields.next().unwrap_or_default();
            let numbers: Result<Vec<u64>, _> = fields.map(str::parse).collect();
            match numbers.as_deref() {
                Ok([runs, failed, counts @ ..]) if counts.len() == COUNTS.len() => {
                    let mut results = KindResults { runs: *runs, failed: *failed, ..KindResults::default() };
                    results.counts.copy_from_slice(counts);
                    tally.0.insert(name.to_owned(), results);
                }
                _ => {
                    let file = tally_file();
                    return Err(format!("malformed line `{line}` in {}: remove the file", file.display()));
                }
            }
        }
        Ok(tally)
    }

    /// Returns the results of a kind so far.
    fn results(&self, kind: &str) -> KindResults {
        self.0.get(kind).cloned().unwrap_or_default()
    }

    /// Adds the result of a run, and writes the file. `counts` is `None` if the run failed.
    fn add(&mut self, kind: &str, counts: Option<[u64; COUNTS.len()]>) -> Outcome {
        let known = self.0.entry(kind.to_owned()).or_default();
        known.runs += 1;
        known.failed += u64::from(counts.is_none());
        for (known, count) in known.counts.iter_mut().zip(counts.unwrap_or_default()) {
            *known += count;
        }
        let write_error = |error| format!("cannot write {}: {error}", tally_file().display());
        fs::create_dir_all(tally_file().with_file_name("")).map_err(write_error)?;
        let lines = self.0.iter().map(|(name, kind)| format_line(name, kind));
        let total = format_line("all", &self.total());
        let text: String = [header()].into_iter().chain(lines).chain([total]).collect();
        fs::write(tally_file(), text).map_err(write_error)
    }

    /// Returns the sum over all kinds.
    fn total(&self) -> KindResults {
        self.0.values().fold(KindResults::default(), |mut total, kind| {
            total.runs += kind.runs;
            total.failed += kind.failed;
            total.counts.iter_mut().zip(kind.counts).for_each(|(total, count)| *total += count);
            total
        })
    }

    /// Prints the sum. Fails if a run of one of these kinds has failed.
    fn print_summary(&self, kinds: &[&str]) -> Outcome {
        say(&format!("\n{}{}", header(), format_line("all", &self.total())));
        let failed: Vec<&str> = kinds.iter().copied().filter(|kind| self.results(kind).failed > 0).collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("failed at least once: {}", failed.join(", "))) }
    }
}

fn header() -> String {
    format!("kind\truns\tfailed\t{}\n", COUNTS.join("\t"))
}

fn format_line(name: &str, kind: &KindResults) -> String {
    let counts = kind.counts.map(|count| count.to_string()).join("\t");
    format!("{name}\t{}\t{}\t{counts}\n", kind.runs, kind.failed)
}
