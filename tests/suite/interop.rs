//! Tests with other clients of the same topics: Python's ktables and Kafka's Java client. All must agree on
//! keys, partitions and tables.

use std::collections::BTreeMap;
use std::process::Command;

use ktables_tests::kafka::{shared, target};
use ktables_tests::{CommandOutput, LogKind, Scratch, parse, root, run_with_stdin};
use serde_json::{Value, json};

/// A client that reads and writes the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Us,
    Python,
    Java,
}

const PEERS: [Peer; 3] = [Peer::Us, Peer::Python, Peer::Java];

/// A table's contents as all peers print them: `{key: value}`, or `{group: {member: value}}`.
type Contents = BTreeMap<String, Value>;

fn python() -> Command {
    let python = target().join("tools/python/bin/python");
    assert!(python.exists(), "{} is missing: run `cargo xtask setup`", python.display());
    let mut command = Command::new(python);
    command.arg(root().join("tests/interop/peer.py"));
    command
}

fn java() -> Command {
    ktables_broker::install(&target()).unwrap();
    let mut command = ktables_broker::java(&target());
    command.arg(root().join("tests/interop/Peer.java"));
    command
}

fn succeeded(ended: CommandOutput) -> CommandOutput {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended
}

impl Peer {
    /// Runs a command of the peer's program.
    fn run(self, command: &str, scratch: &Scratch, grouped: bool, input: &str) -> CommandOutput {
        let mut program = if self == Self::Python { python() } else { java() };
        program.args([command, &shared(), &scratch.topic.name]);
        program.args(grouped.then_some("--grouped"));
        succeeded(run_with_stdin(&mut program, input))
    }

    fn write(self, scratch: &Scratch, grouped: bool, lines: &[Value]) {
        let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
        match self {
            Self::Us => {
                let mut import = scratch.ktables(&["import"]);
                import.args(if grouped { &["--group-scheme", "length-prefixed"][..] } else { &[] });
                let imported = succeeded(run_with_stdin(&mut import, &input));
                assert_eq!(imported.json()[0]["acknowledged"], lines.len());
            }
            _ => assert_eq!(self.run("write", scratch, grouped, &input).json().len(), lines.len()),
        }
    }

    fn read(self, scratch: &Scratch, grouped: bool) -> Contents {
        if self != Self::Us {
            return serde_json::from_str(&self.run("read", scratch, grouped, "").stdout).unwrap();
        }
        let mut contents = Contents::new();
        if !grouped {
            for mut entry in succeeded(run_with_stdin(&mut scratch.ktables(&["dump"]), "")).json() {
                contents.insert(entry["key"].as_str().unwrap().to_owned(), entry["value"].take());
            }
            return contents;
        }
        let with = |args: &[&str]| {
            let args = [args, &["--group-scheme", "length-prefixed"]].concat();
            succeeded(run_with_stdin(&mut scratch.ktables(&args), "")).json()
        };
        for group in with(&["groups"]) {
            let group = group["group"].as_str().unwrap().to_owned();
            let members = with(&["members", &group]).into_iter();
            let members =
                members.map(|mut line| (line["member"].as_str().unwrap().to_owned(), line["value"].take()));
            contents.insert(group, Value::Object(members.collect()));
        }
        contents
    }
}

/// Each peer writes keys of its own, overwrites some keys of the peer before and deletes others. Then all
/// peers must read the same table.
async fn check(grouped: bool) {
    let scratch = LogKind::Kafka.scratch(4).await;
    let mut expected: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut before: Option<Peer> = None;
    for peer in PEERS {
        let key = |peer: Peer, n: usize| (format!("größe-{}-{peer:?}", n % 3), format!("日本-{n}"));
        let mut lines = Vec::new();
        let mut line = |(group, member): (String, String), value: Option<Value>| {
            let mut line = match grouped {
                true => json!({"group": group, "member": member}),
                false => json!({"key": format!("{group}/{member}")}),
            };
            match &value {
                Some(value) => line["value"] = value.clone(),
                None => line["delete"] = json!(true),
            }
            lines.push(line);
            match value {
                Some(value) => drop(expected.insert((group, member), value)),
                None => drop(expected.remove(&(group, member))),
            }
        };
        for n in 0..40 {
            line(
                key(peer, n),
                Some(json!({"from": format!("{peer:?}"), "n": n, "text": "ü\n\"", "none": null})),
            );
        }
        if let Some(before) = before {
            (0..10).for_each(|n| line(key(before, n), Some(json!([peer as u8, n]))));
            (10..20).for_each(|n| line(key(before, n), None));
        }
        peer.write(&scratch, grouped, &lines);
        before = Some(peer);
    }
    let mut contents = Contents::new();
    for ((group, member), value) in expected {
        if grouped {
            contents.entry(group).or_insert_with(|| json!({}))[member] = value;
        } else {
            contents.insert(format!("{group}/{member}"), value);
        }
    }
    for peer in PEERS {
        assert_eq!(peer.read(&scratch, grouped), contents, "{peer:?} reads");
    }
    // All records of a key must be in one partition, whichever peer wrote them.
    let mut partitions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let records = Peer::Java.run("partitions", &scratch, false, "");
    for record in records.stdout.lines().map(parse) {
        partitions.entry(record["key"].to_string()).or_default().push(record["partition"].as_i64().unwrap());
    }
    assert_eq!(partitions.len(), 120);
    assert!(partitions.values().any(|numbers| numbers.len() > 1), "no peer overwrote anything");
    for (key, numbers) in &partitions {
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{key}: {numbers:?}");
    }
    let used: std::collections::BTreeSet<i64> = partitions.into_values().flatten().collect();
    assert_eq!(used.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_peers_agree_on_flat_tables() {
    check(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_peers_agree_on_grouped_tables() {
    check(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafkas_dump_tool_reads_the_segments_of_a_directory() {
    let scratch = Scratch::new(1).await;
    for number in 0..20 {
        scratch.put(&format!("key-{number}"), (number % 5 > 0).then_some(b"\"value\"")).await;
    }
    ktables_broker::install(&target()).unwrap();
    let segment = scratch.path().join(&scratch.topic.name).join("0/00000000000000000000.log");
    let mut dump = ktables_broker::java(&target());
    dump.args(["kafka.tools.DumpLogSegments", "--print-data-log", "--files"]).arg(segment);
    let dumped = succeeded(run_with_stdin(&mut dump, "")).stdout;
    assert_eq!(dumped.matches("key: key-").count(), 20, "{dumped}");
    assert_eq!(dumped.matches("payload: \"value\"").count(), 16, "{dumped}");
    assert!(dumped.contains("isvalid: true") && !dumped.contains("isvalid: false"), "{dumped}");
}
