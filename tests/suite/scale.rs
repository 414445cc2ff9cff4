//! Runs a hundred thousand realistic records through the command with a component.

use std::collections::BTreeMap;

use ktables::codec::{Codecs, Encoded, ValueCodec};
use ktables::log::NewRecord;
use ktables_tests::{
    LogKind, RunningCommand, TOPIC, component, component_path, on_each_log, run, run_with_stdin, succeed,
};
use serde_json::json;

const RECORDS: usize = 100_000;
const KEYS: usize = 60_000;

/// Returns raw values for the records, in the codec's own format.
fn raw_values(name: &str) -> Vec<Vec<u8>> {
    if name == "deb822" {
        let sample = include_str!("../../examples/deb822/sample/status");
        return sample
            .split("\n\n")
            .filter(|s| !s.trim().is_empty())
            .map(|s| s.as_bytes().to_vec())
            .collect();
    }
    let service = |n: usize| {
        json!({"host": format!("host-{n}.example"), "port": 8000 + n, "weight": n, "healthy": !n.is_multiple_of(3),
            "draining": n.is_multiple_of(7), "started": 1_700_000_000_000_u64 + n as u64, "tags": ["eu", format!("zone-{}", n % 5)]})
        .to_string()
    };
    let codec: std::sync::Arc<dyn ValueCodec> = component(name).value_codec(TOPIC, "{}").unwrap();
    let values: Vec<String> = (0..200).map(service).collect();
    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
    let encoded = codec.encode_values(&texts).unwrap();
    encoded.into_iter().map(|encoded: Result<Encoded, _>| encoded.unwrap().raw).collect()
}

// Long because loading a large topic once serves many checks.
async fn check_at_scale(kind: LogKind, name: &str) {
    let scratch = kind.scratch(4).await;
    let values = raw_values(name);
    let mut deleted = 0;
    let records = (0..RECORDS).map(|n| {
        // The last tenth deletes what the first tenth wrote.
        let delete = n >= RECORDS - RECORDS / 10 && n % 10 == 0;
        deleted += usize::from(delete);
        NewRecord {
            key: Some(format!("key-{:06}", n % KEYS).into_bytes()),
            value: (!delete).then(|| values[n % values.len()].clone()),
            ..NewRecord::default()
        }
    });
    let records: Vec<_> = records.collect();
    scratch.write(records).await;
    let codec = component_path(name);
    let codec = ["--value-codec", codec.to_str().unwrap()];
    let entries = KEYS - deleted;

    let command = |args: &[&str]| scratch.ktables(&[args, &codec].concat());
    let status = succeed(&mut command(&["status"])).json().remove(0);
    assert_eq!((&status["status"], &status["entries"]), (&json!("caught_up"), &json!(entries)));
    assert_eq!((&status["records"], &status["tombstones"]), (&json!(RECORDS), &json!(deleted)));
    assert_eq!((&status["rejected"], &status["lag"]), (&json!(0), &json!(0)));

    let watch = RunningCommand::start(&mut command(&["watch"]));
    let seen = watch.until(|line| line["event"] == "synced").len() - 1;
    assert_eq!(seen, entries);

    let dump = succeed(&mut command(&["dump"]));
    assert_eq!(dump.stdout.lines().count(), entries);
    let copy = kind.scratch(3).await;
    let imported = run_with_stdin(&mut copy.ktables(&[&["import"], &codec[..]].concat()), &dump.stdout);
    assert_eq!(
        imported.json()[0],
        json!({
            "lines": entries, "acknowledged": entries, "refused": 0, "expired": 0, "blank": 0,
            "interrupted": false
        })
    );
    let copied = succeed(&mut copy.ktables(&[&["dump"], &codec[..]].concat()));
    assert_eq!(values_of(&dump.stdout), values_of(&copied.stdout));

    // The watcher sees every later `set` once, with the old value.
    let old: serde_json::Value = succeed(&mut command(&["get", "key-000001"])).json().remove(0);
    let mut new = old.clone();
    for round in 0..3 {
        let before = new.clone();
        let field = if name == "deb822" { "Package" } else { "host" };
        new[field] = json!(format!("changed-{round}"));
        succeed(&mut command(&["set", "key-000001", &new.to_string()]));
        let change = watch.next();
        let seen = (&change["key"], &change["old"], &change["new"]);
        assert_eq!(seen, (&json!("key-000001"), &before, &new), "{change}");
    }
    assert!(watch.rest().is_empty());
    assert_eq!(run(&mut command(&["get", "no-such-key"])).code, 1);
    assert_eq!(
        scratch
            .table(Codecs { value: component(name).value_codec(TOPIC, "{}").unwrap(), ..Codecs::default() })
            .await
            .len(),
        entries
    );
}

/// Returns the values of a dump by key.
fn values_of(dump: &str) -> BTreeMap<String, serde_json::Value> {
    let line = |line: &str| {
        let mut line = ktables_tests::parse(line);
        (line["key"].as_str().unwrap().to_owned(), line["value"].take())
    };
    dump.lines().map(line).collect()
}

async fn deb822_at_scale(kind: LogKind) {
    check_at_scale(kind, "deb822").await;
}

async fn service_records_at_scale(kind: LogKind) {
    check_at_scale(kind, "service-record").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_records_in_either_log_yield_the_same_table() {
    let values = raw_values("service-record");
    let component = component_path("service-record");
    let mut dumps = Vec::new();
    for on in [LogKind::Directory, LogKind::Kafka] {
        let scratch = on.scratch(4).await;
        let record = |n: usize| NewRecord {
            key: Some(format!("key-{:06}", n * 7 % KEYS).into_bytes()),
            value: (!n.is_multiple_of(11)).then(|| values[n % values.len()].clone()),
            ..NewRecord::default()
        };
        scratch.write((0..RECORDS).map(record).collect()).await;
        let codec = ["--value-codec", component.to_str().unwrap()];
        let status = succeed(&mut scratch.ktables(&[&["status"], &codec[..]].concat())).json().remove(0);
        let partitions = status["partitions"].clone();
        assert_eq!((&status["records"], &status["lag"]), (&json!(RECORDS), &json!(0)));
        let mut dump = succeed(&mut scratch.ktables(&[&["dump"], &codec[..]].concat())).json();
        // Compares key, value, partition and offset. Timestamps differ between logs.
        dump.iter_mut().for_each(|entry| drop(entry.as_object_mut().unwrap().remove("timestamp")));
        dumps.push((dump, partitions));
    }
    assert!(dumps[0].0.len() > KEYS / 2);
    assert!(dumps[0] == dumps[1], "the tables differ");
}

on_each_log!(deb822_at_scale, service_records_at_scale);
