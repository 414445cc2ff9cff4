//! The commands for schema registries, with a real one.

use std::path::Path;

use ktables_tests::{CommandOutput, kafka, ktables, run, succeed, unique};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The versions of a record: the second one adds a field with a default, the third one without.
const VERSIONS: [&str; 3] = [
    r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}"#,
    r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": "string", "default": ""}]}"#,
    r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": "string"}, {"name": "price", "type": "double"}]}"#,
];

/// Runs a command with the registry that all tests share.
fn schema(args: &[&str]) -> CommandOutput {
    run(ktables(&["schema"]).args(args).env("KTABLES_SCHEMA_REGISTRY", kafka::schema_registry()))
}

fn one(output: CommandOutput) -> Value {
    assert_eq!(output.code, 0, "{}", output.stderr);
    let mut lines = output.json();
    assert_eq!(lines.len(), 1, "{}", output.stdout);
    lines.remove(0)
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn versions_of_a_subject_are_added_checked_compared_and_deleted() {
    let (folder, subject) = (TempDir::new().unwrap(), unique("orders"));
    let files: Vec<String> =
        (0..3).map(|n| write(folder.path(), &format!("v{n}.avsc"), VERSIONS[n])).collect();
    let first = one(schema(&["add", &subject, &files[0]]));
    assert_eq!(
        (&first["subject"], &first["version"], &first["type"]),
        (&json!(subject), &json!(1), &json!("AVRO"))
    );
    assert_eq!(one(schema(&["add", &subject, &files[0]])), first, "it has the schema already");
    one(schema(&["compat", "set", "backward", &subject]));
    assert_eq!(one(schema(&["compat", "get", &subject]))["compatibility"], "BACKWARD");
    assert_eq!(one(schema(&["check", &subject, &files[1]]))["compatible"], true);
    let checked = schema(&["check", &subject, &files[2]]);
    assert_eq!((checked.code, &checked.json()[0]["compatible"]), (1, &json!(false)), "{}", checked.stderr);
    let refused = schema(&["add", &subject, &files[2]]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("409"), "{}", refused.stderr);
    assert_eq!(one(schema(&["add", &subject, &files[1]]))["version"], 2);
    let versions = schema(&["versions", &subject]).json();
    assert_eq!(versions.iter().map(|row| &row["version"]).collect::<Vec<_>>(), [&json!(1), &json!(2)]);
    let found = one(schema(&["get", &format!("{subject}@1")]));
    assert_eq!(found["id"], first["id"]);
    let text = schema(&["get", "--text", "--id", &first["id"].to_string()]).stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        serde_json::from_str::<Value>(VERSIONS[0]).unwrap()
    );
    let listed = schema(&["list", "--prefix", &subject]).json();
    assert_eq!((listed.len(), &listed[0]["version"]), (1, &json!(2)));
    let diff = schema(&["diff", &format!("{subject}@1"), &subject]);
    assert_eq!(diff.code, 1, "{}", diff.stderr);
    assert!(
        diff.stdout.lines().any(|line| line.starts_with('+') && line.contains("note")),
        "{}",
        diff.stdout
    );
    assert_eq!(schema(&["diff", &subject, &subject]).code, 0);
    let dry = schema(&["delete", &subject]);
    assert_eq!((dry.code, dry.json().len()), (2, 2), "{}", dry.stderr);
    assert_eq!(schema(&["versions", &subject]).json().len(), 2, "nothing was deleted");
    one(schema(&["delete", &format!("{subject}@1"), "--yes"]));
    assert_eq!(schema(&["versions", &subject]).json().len(), 1);
    assert_eq!(schema(&["delete", &subject, "--yes"]).code, 0);
    assert_eq!(schema(&["list", "--prefix", &subject]).json(), Vec::<Value>::new());
    assert_eq!(schema(&["list", "--prefix", &subject, "--deleted"]).json().len(), 1, "it can be restored");
    assert_eq!(schema(&["delete", &subject, "--permanent", "--yes"]).json().len(), 2);
    assert_eq!(schema(&["list", "--prefix", &subject, "--deleted"]).json(), Vec::<Value>::new());
    for args in [&["get", &subject][..], &["versions", &subject], &["get", "--id", "999999"]] {
        let missing = schema(args);
        assert!(
            missing.code != 0 && missing.stderr.contains("does not have it"),
            "{args:?}: {}",
            missing.stderr
        );
    }
}

#[test]
fn a_schema_is_printed_as_it_is() {
    let (folder, subject) = (TempDir::new().unwrap(), unique("long"));
    let text =
        format!("syntax = \"proto3\";\nmessage Long {{\n\tstring a = 1; // {}\n}}\n", "x".repeat(5000));
    let file = write(folder.path(), "long.proto", &text);
    one(schema(&["add", &subject, &file]));
    let printed = schema(&["get", &subject, "--text"]).stdout;
    assert!(printed.contains("\tstring a = 1;") && printed.contains(&"x".repeat(5000)), "{printed}");
}

#[test]
fn schemas_refer_to_others_in_each_format() {
    let folder = TempDir::new().unwrap();
    for (ending, other, name, main) in [
        (
            "avsc",
            r#"{"type": "enum", "name": "Color", "symbols": ["RED"]}"#,
            "Color",
            r#"{"type": "record", "name": "Car", "fields": [{"name": "color", "type": "Color"}]}"#,
        ),
        (
            "proto",
            "syntax = \"proto3\";\nmessage Color { string name = 1; }\n",
            "color.proto",
            "syntax = \"proto3\";\nimport \"color.proto\";\nmessage Car { Color color = 1; }\n",
        ),
        (
            "json",
            r#"{"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.com/color", "type": "object", "properties": {"name": {"type": "string"}}}"#,
            "https://example.com/color",
            r#"{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"color": {"$ref": "https://example.com/color"}}}"#,
        ),
    ] {
        let (color, car) = (unique("color"), unique("car"));
        let other = write(folder.path(), &format!("other.{ending}"), other);
        let main = write(folder.path(), &format!("main.{ending}"), main);
        assert_eq!(one(schema(&["add", &color, &other]))["version"], 1, "{ending}");
        let reference = format!("{name}={color}@1");
        let added = one(schema(&["add", &car, &main, "--reference", &reference]));
        let found = one(schema(&["get", &car]));
        assert_eq!(found["id"], added["id"], "{ending}");
        assert_eq!(
            found["references"],
            json!([{ "name": name, "subject": color, "version": 1 }]),
            "{ending}"
        );
    }
}

#[test]
fn the_ids_of_a_topic_are_counted_and_resolved() {
    let folder = TempDir::new().unwrap();
    let file = write(folder.path(), "v.avsc", VERSIONS[0]);
    let id = u32::try_from(one(schema(&["add", &unique("ids"), &file]))["id"].as_u64().unwrap()).unwrap();
    let log = format!("dir:{}", folder.path().join("log").display());
    let topic = ["--log", &*log, "--topic", "t"];
    succeed(ktables(&["topic", "ensure"]).args(topic));
    let with_id = |id: u32| [&[0][..], &id.to_be_bytes(), &[2]].concat();
    for value in [with_id(id), with_id(id), with_id(4_000_000_000), b"{}".to_vec()] {
        let path = folder.path().join("value");
        std::fs::write(&path, value).unwrap();
        let value = path.to_str().unwrap();
        succeed(ktables(&["produce", "--key", "k", "--value-file", value]).args(topic));
    }
    let rows = run(ktables(&["schema", "ids"]).args(topic).env_remove("KTABLES_SCHEMA_REGISTRY")).json();
    assert_eq!(rows.len(), 4, "keys without an id, and three kinds of values: {rows:?}");
    let counted = schema(&[&["ids"], &topic[..]].concat());
    assert_eq!(counted.code, 1, "one is unknown: {}", counted.stderr);
    let rows = counted.json();
    let row = |id: &str| rows.iter().find(|row| row["part"] == "value" && row["id"] == id).unwrap();
    let known = row(&id.to_string());
    assert_eq!(
        (&known["records"], &known["resolved"], &known["type"]),
        (&json!(2), &json!(true), &json!("AVRO"))
    );
    assert_eq!((&known["first"]["offset"], &known["last"]["offset"]), (&json!(0), &json!(1)));
    assert_eq!(row("4000000000")["resolved"], false);
    assert!(rows.iter().any(|row| row["part"] == "value" && row["id"].is_null() && row["records"] == 1));
}

#[test]
fn no_name_of_a_subject_reaches_another_address() {
    for subject in ["", ".", ".."] {
        for args in
            [&["compat", "set", "NONE", subject][..], &["delete", subject, "--yes"], &["versions", subject]]
        {
            assert_eq!(schema(args).code, 2, "{args:?}");
        }
    }
}

#[test]
fn a_registry_is_named_by_its_address_or_in_the_configuration() {
    let folder = TempDir::new().unwrap();
    let config = write(
        folder.path(),
        "ktables.toml",
        &format!(
            "[schema_registries.prod]\nurl = [\"http://127.0.0.1:1\", \"{}\"]\n",
            kafka::schema_registry()
        ),
    );
    let list =
        |args: &[&str]| run(ktables(&["schema", "list"]).args(args).env_remove("KTABLES_SCHEMA_REGISTRY"));
    assert_eq!(list(&["--registry", "prod", "--config", &config]).code, 0);
    assert_eq!(list(&["--registry", &kafka::schema_registry()]).code, 0);
    for (args, expected) in [
        (&[][..], "which schema registry?"),
        (&["--registry", "dev", "--config", &config], "it has `prod`"),
        (&["--registry", "ftp://x"], "begins with http://"),
        (&["--registry", "localhost:8081"], "write http://localhost:8081"),
        (&["--registry", "http://user:secret@x"], "set username and password"),
    ] {
        let refused = list(args);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(
            refused.stderr.contains(expected) && !refused.stderr.contains("secret"),
            "{}",
            refused.stderr
        );
    }
}
