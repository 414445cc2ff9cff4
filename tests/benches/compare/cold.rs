//! Measures fixed costs: a whole `ktables get`, loading components, and making codecs of them.

use std::process::Command;
use std::time::{Duration, Instant};

use ktables::wasm::{Compiler, Engine, EngineOptions, LoadOptions};
use ktables_tests::{TOPIC, cache_folder, component_path, engine_options, ktables, succeed};

use crate::contender::COMMAND;
use crate::data::{Values, Workload, key, produce};
use crate::process::{self, Memory};
use crate::report::{Cell, Ratio, Report};
use crate::{Options, replay};

/// How often each command, loop and load is timed in a round.
const TIMES: usize = 10;

/// The topic from which `ktables get` reads one key.
const TOPIC_OF_10K: Workload =
    Workload { name: "cold", records: 10_000, keys: 10_000, values: Values::Services, ..replay::SMALL };

pub(crate) fn run(options: &Options, bootstrap: &str, report: &mut Report) {
    if options.wants("cold") {
        report.add(cold_cell(options, bootstrap));
    }
    if options.wants("component") {
        report.add(component_cell(options));
    }
    if options.wants("artifact") {
        report.add(artifact_cell(options));
    }
    if options.wants("first-load") {
        report.add(first_load_cell(options));
    }
}

/// Times the command from its start to its end, with the compiled component in the cache, and a bare client.
fn cold_cell(options: &Options, bootstrap: &str) -> Cell {
    let topic = produce(bootstrap, &TOPIC_OF_10K);
    let about = format!(
        "`ktables get` of a key in a topic of {} records, {TIMES} runs a round",
        TOPIC_OF_10K.records
    );
    let mut cell = Cell::new("cold", about);
    let (codec, log) = (component_path("service-record"), format!("kafka://{bootstrap}"));
    let get = || {
        let args = ["get", &key(42), "--log", &log, "--topic", &topic, "--value-codec"];
        drop(succeed(ktables(&args).arg(&codec)));
    };
    let raw = || {
        let mut raw = Command::new(std::env::current_exe().unwrap());
        let run = process::run(raw.args([COMMAND, "raw", "bulk", bootstrap, &topic]), Memory::Ignored);
        assert_eq!(run.number("records"), TOPIC_OF_10K.records as f64);
        Duration::from_secs_f64(run.number("done") - run.started)
    };
    // The first run fills the cache.
    get();
    for _ in 0..options.rounds {
        let (mut ours, mut read, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TIMES {
            ours.push(time(get));
            theirs.push(time(|| read.push(raw())));
        }
        cell.add_sample("ktables get", "p50, ms", median(ours));
        cell.add_sample("raw librdkafka loop, to its last record", "p50, ms", median(read));
        cell.add_sample("raw librdkafka loop, to the end of its process", "p50, ms", median(theirs));
    }
    let raw = "raw librdkafka loop, to its last record";
    cell.add_ratio("time / the raw loop's", "p50, ms", raw, Ratio::Amount);
    cell
}

/// Times `ktables status` of an empty table whose codec is a file, and whose codec is an artifact in the store, with a policy
/// that requires a signature. Without network.
fn artifact_cell(options: &Options) -> Cell {
    let mut cell =
        Cell::new("artifact", format!("`ktables status` of an empty directory log, {TIMES} runs a round"));
    let folder = tempfile::TempDir::new().unwrap();
    let component = component_path("service-record");
    let command = |args: &[&str]| {
        let mut command = ktables(args);
        command.current_dir(folder.path());
        command
    };
    succeed(&mut command(&["codec", "keygen", "platform"]));
    let layout =
        ["codec", "push", component.to_str().unwrap(), "oci-layout:codecs:1.0.0", "--sign", "platform.key"];
    let pushed = succeed(&mut command(&layout)).json().pop().unwrap();
    let policy = "version = 1\ndefault = \"refuse\"\n[keys.platform]\nfile = \"platform.pub\"\n[[rule]]\nsigned_by = { any_of = \
                  [\"platform\"] }\n";
    std::fs::write(folder.path().join("policy.toml"), policy).unwrap();
    let reference = format!("oci://registry.example/codecs/service@{}", pushed["manifest"].as_str().unwrap());
    let table = |codec: &str| {
        let args = [
            "status",
            "--log",
            "dir:./data",
            "--topic",
            "services",
            "--value-codec",
            codec,
            "--output",
            "json",
        ];
        let mut command = command(&args);
        command.env("KTABLES_CODEC_PATH", folder.path().join("codecs")).env("KTABLES_OFFLINE", "1");
        command
    };
    succeed(&mut command(&["topic", "ensure", "--log", "dir:./data", "--topic", "services"]));
    let from_file = || drop(succeed(&mut table(component.to_str().unwrap())));
    let from_store =
        || drop(succeed(table(&reference).env("KTABLES_POLICY", folder.path().join("policy.toml"))));
    // The first runs fill the cache.
    from_file();
    from_store();
    for _ in 0..options.rounds {
        let (mut files, mut stores) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            files.push(time(from_file));
            stores.push(time(from_store));
        }
        cell.add_sample("a file", "p50, ms", median(files));
        cell.add_sample("an artifact of the store, with a policy", "p50, ms", median(stores));
    }
    cell.add_ratio("time / the file's", "p50, ms", "a file", Ratio::Amount);
    cell
}

/// Times loading a component, and making a codec of it.
fn component_cell(options: &Options) -> Cell {
    let path = component_path("service-record");
    let size = std::fs::metadata(&path).unwrap().len();
    let mut cell = Cell::new("component", format!("service-record, {size} bytes, {TIMES} a round"));
    let engine = |cache| Engine::new(EngineOptions { cache, ..engine_options() }).unwrap();
    let (compiling, caching) = (engine(None), engine(Some(cache_folder())));
    let loaded = caching.load(&path, LoadOptions::default()).unwrap();
    for _ in 0..options.rounds {
        let mut measure = |label, work: &dyn Fn()| {
            cell.add_sample(label, "p50, ms", median((0..TIMES).map(|_| time(work)).collect()));
        };
        measure("load, compiling", &|| drop(compiling.load(&path, LoadOptions::default()).unwrap()));
        measure("load, from the cache", &|| drop(caching.load(&path, LoadOptions::default()).unwrap()));
        measure("make a codec: instantiate, configure", &|| drop(loaded.value_codec(TOPIC, "{}").unwrap()));
    }
    cell
}

/// Times loading components that are not in a cache: compiled by a child process, which contains the damage
/// that compiling may do, and compiled in this process.
fn first_load_cell(options: &Options) -> Cell {
    let mut cell = Cell::new("first-load", format!("the example components, {TIMES} times each a round"));
    let engine =
        |compiler| Engine::new(EngineOptions { cache: None, ..EngineOptions::new(compiler) }).unwrap();
    let child = engine_options().compiler;
    let engines = [("a child", engine(child)), ("this process", engine(Compiler::InProcess))];
    let components = ["service-record", "deb822", "deb822-by-section"];
    for _ in 0..options.rounds {
        for name in components {
            let bytes = std::fs::read(component_path(name)).unwrap();
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..TIMES {
                for ((_, engine), times) in engines.iter().zip(&mut times) {
                    times.push(time(|| {
                        engine.load_bytes(name, bytes.clone(), LoadOptions::default()).unwrap();
                    }));
                }
            }
            for ((compiler, _), times) in engines.iter().zip(times) {
                cell.add_sample(&format!("{name}, in {compiler}"), "p50, ms", median(times));
            }
        }
    }
    for name in components {
        let reference = format!("{name}, in this process");
        cell.add_ratio_for(
            &format!("{name},"),
            "time / in this process",
            "p50, ms",
            &reference,
            Ratio::Amount,
        );
    }
    cell
}

/// Returns how long `work` takes.
fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Returns the median in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
