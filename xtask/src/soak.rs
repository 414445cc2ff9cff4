//! The tests that inject faults, again and again, and a tally in a file: what was done in
//! an earlier run counts, so that a soak can be run in parts.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::guests::guests;
use crate::run::{Outcome, built, cargo, command, output, say, target};
use crate::setup::setup;

/// Below these modules, each test is a kind of fault.
const MODULES: [&str; 1] = ["faults::"];

/// And so are these.
const TESTS: [&str; 4] = [
    "checkpoints::a_full_disk_ends_the_checkpoint_and_not_the_table",
    "checkpoints::a_process_that_is_killed_at_any_moment_leaves_a_sound_checkpoint_or_none",
    "checkpoints::damage_in_any_block_is_found_and_the_topic_replayed",
    "expiry::a_clock_that_is_set_hides_and_shows::on_kafka",
];

/// What tests count, in the order of the file's columns.
const COUNTS: [&str; 6] = ["faults", "acknowledged", "lost", "doubled", "wrong", "false_claims"];

/// How often each kind is repeated.
const TIMES: u64 = 20;

/// What is known of one kind.
#[derive(Debug, Default, Clone)]
struct Kind {
    runs: u64,
    failed: u64,
    counts: [u64; COUNTS.len()],
}

/// How it was asked for.
#[derive(Debug)]
struct Options {
    only: Vec<String>,
    times: u64,
    /// What earlier runs counted does not count.
    anew: bool,
}

impl Options {
    fn parse(args: &[String]) -> Outcome<Self> {
        let mut options = Self { only: Vec::new(), times: TIMES, anew: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value"));
            match arg.as_str() {
                "--only" => options.only.push(value()?.clone()),
                "--anew" => options.anew = true,
                "--times" => {
                    options.times = value()?.parse().map_err(|error| format!("--times: {error}"))?;
                }
                _ => return Err(format!("`{arg}` is none of --only KIND, --times N, --anew")),
            }
        }
        Ok(options)
    }
}

/// Repeats each kind until it was run so often, all kinds in turns.
pub(crate) fn soak(args: &[String]) -> Outcome {
    let options = Options::parse(args)?;
    setup()?;
    guests()?;
    let suite = built("suite", &mut cargo(["test", "--release", "--workspace", "--test", "suite"]))?;
    let listed = output(command(&suite).arg("--list"))?;
    let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let is_kind = |test: &&str| MODULES.iter().any(|module| test.starts_with(module)) || TESTS.contains(test);
    let wanted =
        |test: &&str| options.only.is_empty() || options.only.iter().any(|only| test.contains(only.as_str()));
    let kinds: Vec<&str> = tests.filter(is_kind).filter(wanted).collect();
    if kinds.is_empty() {
        return Err("no kind of fault has such a name; the suite's tests below faults:: are kinds".to_owned());
    }
    if options.anew && file().exists() {
        let before = file().with_extension("before.tsv");
        fs::rename(file(), &before).map_err(|error| format!("{}: {error}", before.display()))?;
    }
    let mut tally = Tally::read()?;
    say(&format!(
        "{} kinds, {} times each; the tally is in {}",
        kinds.len(),
        options.times,
        file().display()
    ));
    for round in 1..=options.times {
        for kind in &kinds {
            if tally.of(kind).runs < round {
                tally.take(kind, repeat(&suite, kind, round)?)?;
            }
        }
    }
    tally.tell(&kinds)
}

/// Runs a kind once: what it counted, or `None` if it failed.
fn repeat(suite: &PathBuf, kind: &str, round: u64) -> Outcome<Option<[u64; COUNTS.len()]>> {
    let run = command(suite).args(["--exact", kind, "--nocapture"]).output();
    let run = run.map_err(|error| format!("cannot run {}: {error}", suite.display()))?;
    let said = String::from_utf8_lossy(&run.stdout);
    let mut counts = [0; COUNTS.len()];
    for line in said.lines().filter_map(|line| line.strip_prefix("TALLY ")) {
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
    let log = file().with_file_name(format!("{}-{round}.log", kind.replace("::", "-")));
    let text = [run.stdout, run.stderr].concat();
    fs::write(&log, text).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    say(&format!("round {round}: {kind} FAILED, see {}", log.display()));
    Ok(None)
}

/// Where the tally is.
fn file() -> PathBuf {
    target().join("soak/tally.tsv")
}

/// What was counted, by kind.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, Kind>);

impl Tally {
    fn read() -> Outcome<Self> {
        let text = fs::read_to_string(file()).unwrap_or_default();
        let mut tally = Self::default();
        for line in text.lines().skip(1).filter(|line| !line.starts_with("all\t")) {
            let mut fields = line.split('\t');
            let name = fields.next().unwrap_or_default();
            let numbers: Result<Vec<u64>, _> = fields.map(str::parse).collect();
            match numbers.as_deref() {
                Ok([runs, failed, counts @ ..]) if counts.len() == COUNTS.len() => {
                    let mut kind = Kind { runs: *runs, failed: *failed, ..Kind::default() };
                    kind.counts.copy_from_slice(counts);
                    tally.0.insert(name.to_owned(), kind);
                }
                _ => return Err(format!("{}: `{line}` is no tally: remove the file", file().display())),
            }
        }
        Ok(tally)
    }

    fn of(&self, kind: &str) -> Kind {
        self.0.get(kind).cloned().unwrap_or_default()
    }

    /// Counts a run, and writes everything.
    fn take(&mut self, kind: &str, counts: Option<[u64; COUNTS.len()]>) -> Outcome {
        let known = self.0.entry(kind.to_owned()).or_default();
        known.runs += 1;
        known.failed += u64::from(counts.is_none());
        for (known, count) in known.counts.iter_mut().zip(counts.unwrap_or_default()) {
            *known += count;
        }
        let failed = |error| format!("cannot write {}: {error}", file().display());
        fs::create_dir_all(file().with_file_name("")).map_err(failed)?;
        let lines = self.0.iter().map(|(name, kind)| line(name, kind));
        let text: String = [header()].into_iter().chain(lines).chain([line("all", &self.all())]).collect();
        fs::write(file(), text).map_err(failed)
    }

    fn all(&self) -> Kind {
        self.0.values().fold(Kind::default(), |mut all, kind| {
            all.runs += kind.runs;
            all.failed += kind.failed;
            all.counts.iter_mut().zip(kind.counts).for_each(|(all, count)| *all += count);
            all
        })
    }

    fn tell(&self, kinds: &[&str]) -> Outcome {
        say(&format!("\n{}{}", header(), line("all", &self.all())));
        let failed: Vec<&str> = kinds.iter().copied().filter(|kind| self.of(kind).failed > 0).collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("failed at least once: {}", failed.join(", "))) }
    }
}

fn header() -> String {
    format!("kind\truns\tfailed\t{}\n", COUNTS.join("\t"))
}

fn line(name: &str, kind: &Kind) -> String {
    let counts = kind.counts.map(|count| count.to_string()).join("\t");
    format!("{name}\t{}\t{}\t{counts}\n", kind.runs, kind.failed)
}
