//! Times commands that read a topic to its end: values in Avro, whose schema is in a registry, compared with JSON through a
//! component, and with Confluent's client for Python.

use std::process::Command;

use avro::Avro;
use ktables_guest::{Context, Plugin, Role, ValueCodec};
use ktables_tests::kafka::{schema_registry, target};
use ktables_tests::{component_path, ktables, root, run as run_command, unique};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::data::{self, Workload, produce_values};
use crate::process::{self, Memory};
use crate::replay::SMALL;
use crate::report::{Cell, Ratio, Report};
use crate::{Options, replay, say};

const WORKLOAD: Workload = Workload { name: "schemas", ..SMALL };

/// The size of a value, with the id of its schema.
const VALUE_BYTES: usize = 100;

const JSON: &str = "ktables, component json";
const AVRO: &str = "ktables, component avro";
const PYTHON: &str = "Python confluent-kafka, AvroDeserializer";
const JAVA: &str = "GlobalKTable, in memory, Apicurio's AvroKafkaDeserializer";

pub(crate) fn run(options: &Options, bootstrap: &str, report: &mut Report) {
    if options.wants(WORKLOAD.name) {
        report.add(schemas_cell(options, bootstrap));
    }
}

fn schemas_cell(options: &Options, bootstrap: &str) -> Cell {
    let Workload { name, records, keys, partitions, .. } = WORKLOAD;
    say(&format!("{name}: writing {records} records twice"));
    let (registry, folder) = (schema_registry(), TempDir::new().unwrap());
    let id = add_schema(&registry, &folder);
    let json = data::produce(bootstrap, &WORKLOAD);
    let avro = produce_values(bootstrap, &WORKLOAD, &(0..1000).map(|n| value(n, id)).collect::<Vec<_>>());
    let about = format!("{records} values of {VALUE_BYTES} bytes over {keys} keys, {partitions} partitions");
    let mut cell = Cell::new(name, about);
    let log = format!("kafka://{bootstrap}");
    let mirror = component_path("mirror");
    let ours = |topic: &str, codec: &[&str]| {
        let mut command = ktables(&["status", "--log", &log, "--topic", topic, "--catchup-timeout", "10m"]);
        command.args(codec).env("KTABLES_CACHE_DIR", folder.path().join("cache"));
        command
    };
    let json = || {
        ours(
            &json,
            &["--value-codec", mirror.to_str().unwrap(), "--value-codec-config", r#"{"mode":"json"}"#],
        )
    };
    let avro_codec = ["--value-codec", "avro", "--schema-registry", &registry];
    let python = || {
        let mut python = Command::new(target().join("tools/python/bin/python"));
        python.arg(root().join("tests/benches/peers/schemas.py")).args([&registry, bootstrap, &avro]);
        python
    };
    let java = || {
        let mut java = replay::java_peer("avro", bootstrap, &avro);
        java.arg(registry.replace("/apis/ccompat/v7", "/apis/registry/v2"));
        java
    };
    // Compiled code is cached from the first run on.
    for command in [&mut json(), &mut ours(&avro, &avro_codec)] {
        process::run(command, Memory::Ignored);
    }
    for round in 0..options.rounds {
        say(&format!("{name}: round {} of {}", round + 1, options.rounds));
        let mut contenders = vec![(JSON, json()), (AVRO, ours(&avro, &avro_codec))];
        if options.peers {
            contenders.extend([(PYTHON, python()), (JAVA, java())]);
        }
        for (label, mut command) in contenders {
            let run = process::run(&mut command, Memory::Ignored);
            assert_eq!(run.number("records"), records as f64, "{label}: {}", run.result);
            assert_eq!(run.number("entries"), keys as f64, "{label}: {}", run.result);
            cell.add_sample(label, "from start, s", run.done - run.started);
            cell.add_sample(label, "M records/s", records as f64 / 1e6 / (run.done - run.started));
            cell.add_sample(label, "CPU, us/record", run.cpu.as_secs_f64() * 1e6 / records as f64);
        }
    }
    cell.add_ratio("speed / component json's", "from start, s", JSON, Ratio::Speed);
    cell
}

fn schema() -> Value {
    json!({
        "type": "record",
        "name": "Service",
        "fields": [
            { "name": "id", "type": "long" },
            { "name": "up", "type": "boolean" },
            { "name": "weight", "type": "double" },
            { "name": "tags", "type": { "type": "array", "items": "string" } },
            { "name": "host", "type": "string" },
        ],
    })
}

/// Adds the schema to the registry, and returns its id.
fn add_schema(registry: &str, folder: &TempDir) -> u32 {
    let file = folder.path().join("schema.avsc");
    std::fs::write(&file, schema().to_string()).unwrap();
    let subject = unique("bench");
    let mut add = ktables(&["schema", "add", &subject, "--registry", registry]);
    let added = run_command(add.arg(&file));
    assert_eq!(added.code, 0, "{}", added.stderr);
    u32::try_from(added.json()[0]["id"].as_u64().unwrap()).unwrap()
}

/// Returns a value of [`VALUE_BYTES`], with the id of its schema.
fn value(n: usize, id: u32) -> Vec<u8> {
    let config = json!({ "plain": schema() }).to_string();
    let codec = Avro::configure(&Context { topic: "t".to_owned(), role: Role::Value, config }).unwrap();
    let prefix = [&[0][..], &id.to_be_bytes()].concat();
    let encode = |host: usize| {
        let json = data::json(n, 200);
        let mut json: Value = serde_json::from_str(&json).unwrap();
        json["host"] = json!("node-0123456789.example.net/".chars().cycle().take(host).collect::<String>());
        [prefix.clone(), codec.encode(&json.to_string()).unwrap().raw].concat()
    };
    let host = VALUE_BYTES - encode(0).len();
    // A longer text has a longer length.
    [host, host - 1].into_iter().map(encode).find(|value| value.len() == VALUE_BYTES).unwrap()
}
