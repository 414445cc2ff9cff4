//! The bundled codecs, with a real registry, and with Confluent's client for Python and Apicurio's serializers for Java as
//! the other side.

use std::collections::BTreeMap;
use std::process::Command;

use ktables_tests::kafka::{schema_registry, shared, target};
use ktables_tests::{CommandOutput, kafka, ktables, root, run, succeed, unique};
use serde_json::{Value, json};
use tempfile::TempDir;

type Contents = BTreeMap<String, Value>;

fn contents(output: &CommandOutput) -> Contents {
    assert_eq!(output.code, 0, "{}", output.stderr);
    let entry = |mut entry: Value| (entry["key"].as_str().unwrap().to_owned(), entry["value"].take());
    output.json().into_iter().map(entry).collect()
}

/// A topic with values in a format, and what its peers need to read and write it.
struct Topic {
    format: &'static str,
    name: String,
    folder: TempDir,
}

impl Topic {
    async fn new(format: &'static str) -> Self {
        let topic = Self { format, name: unique(format), folder: TempDir::new().unwrap() };
        kafka::create(&shared(), &topic.name, 2, &[("cleanup.policy", "compact")]).await;
        topic.configure("");
        topic
    }

    fn configure(&self, codec: &str) {
        let text = format!(
            "[logs.kafka]\nurl = \"kafka://{}\"\n[schema_registries.test]\nurl = \"{}\"\n\
             [codecs.own]\ncomponent = \"{}\"\nschema_registry = \"test\"\n{codec}\n\
             [tables.t]\nlog = \"kafka\"\ntopic = \"{}\"\nvalue_codec = \"own\"\n",
            shared(),
            schema_registry(),
            self.format,
            self.name
        );
        std::fs::write(self.folder.path().join("ktables.toml"), text).unwrap();
    }

    /// Runs a command with a cache of its own for schemas: the ids of a registry in memory begin again with each start.
    fn ktables(&self, args: &[&str]) -> CommandOutput {
        let mut command = ktables(args);
        let config = self.folder.path().join("ktables.toml");
        command.arg("--config").arg(config).args(["-t", "t"]);
        run(command.env("KTABLES_CACHE_DIR", self.folder.path().join("cache")))
    }

    fn python(&self, action: &str) -> CommandOutput {
        let python = target().join("tools/python/bin/python");
        assert!(python.exists(), "{} is missing: run `cargo xtask setup`", python.display());
        let peer = format!("tests/interop/{}_peer.py", self.format.replace("-schema", ""));
        let mut command = Command::new(python);
        command.arg(root().join(peer));
        run(command.args([action, &schema_registry(), &shared(), &self.name]))
    }

    /// Runs Apicurio's serializers for Java.
    fn java(&self, action: &str) -> CommandOutput {
        let library = target().join("tools/java");
        assert!(library.exists(), "{} is missing: run `cargo xtask setup`", library.display());
        let folder = self.folder.path().display();
        let mut java = Command::new("java");
        java.args(["-cp", &format!("{}/*:{folder}", library.display()), &format!("-Dpeer.folder={folder}")]);
        java.arg(root().join("tests/interop/RegistryPeer.java"));
        let registry = schema_registry().replace("/apis/ccompat/v7", "/apis/registry/v2");
        let format = self.format.replace("-schema", "");
        run(java.args([action, &format, &registry, &shared(), &self.name]))
    }

    /// Sets the value of `k1`, and checks that a peer, which `read` runs, has the same values as the table.
    fn check_written(&self, value: &Value, read: impl Fn() -> CommandOutput) {
        let set = self.ktables(&["set", "k1", &value.to_string()]);
        assert_eq!(set.code, 0, "{}", set.stderr);
        let (theirs, ours) = (contents(&read()), contents(&self.ktables(&["dump"])));
        assert_eq!((&theirs["k1"], &ours["k1"]), (value, value));
        assert_eq!(theirs, ours);
    }
}

/// Checks that a table has what Confluent's client for Python has written, and that it reads what the table's writer writes:
/// the newest version, with a change.
async fn agree(format: &'static str, count: usize, change: impl Fn(&mut Value)) -> Topic {
    let topic = Topic::new(format).await;
    let written = contents(&topic.python("write"));
    assert_eq!(written.len(), count);
    let read = contents(&topic.ktables(&["dump"]));
    for (key, value) in &written {
        assert_eq!(read.get(key), Some(value), "{key}");
    }
    let mut value = written["k20"].clone();
    change(&mut value);
    topic.check_written(&value, || topic.python("read"));
    topic
}

#[tokio::test]
async fn confluents_client_for_python_and_the_codec_for_avro_agree() {
    let change = |value: &mut Value| {
        value["note"] = json!("changed");
        value["next"] = json!({ "order": null });
    };
    let topic = agree("avro", 41, change).await;
    let missing = topic.ktables(&["set", "k1", r#"{"id": 1}"#]);
    assert!(missing.code == 1 && missing.stderr.contains("$.color is missing"), "{}", missing.stderr);
    topic.configure("config = { write = { version = 9 } }");
    let unknown = topic.ktables(&["set", "k1", "{}"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("unknown schema"), "{}", unknown.stderr);
}

#[tokio::test]
async fn confluents_client_for_python_and_the_codec_for_json_schema_agree() {
    let change = |value: &mut Value| {
        value["note"] = json!("changed");
        value["next"] = json!({ "order": null });
    };
    let topic = agree("json-schema", 41, change).await;
    let wrong = topic.ktables(&["set", "k1", r#"{"id": 1, "color": "BLUE"}"#]);
    assert!(wrong.code == 1 && wrong.stderr.contains("/color: "), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("(enum)"), "{}", wrong.stderr);
}

#[tokio::test]
async fn confluents_client_for_python_and_the_codec_for_protobuf_agree() {
    let change = |value: &mut Value| {
        value["color"] = json!("GREEN");
        value.as_object_mut().unwrap().remove("name");
        value["next"] = json!({ "id": "5", "counts": { "z": "-1" } });
    };
    let topic = agree("protobuf", 43, change).await;
    let wrong = topic.ktables(&["set", "k1", r#"{"colour": "RED"}"#]);
    assert!(wrong.code == 1 && wrong.stderr.contains("unknown field \"colour\""), "{}", wrong.stderr);
    topic.configure("config = { message = 'shop.Order.Line', integers = 'number' }");
    let set = topic.ktables(&["set", "l2", r#"{"amount": 9007199254740993}"#]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert_eq!(contents(&topic.python("read"))["l2"], json!({ "amount": "9007199254740993" }));
    topic.configure("config = { message = 'shop.None' }");
    let unknown = topic.ktables(&["set", "l2", "{}"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("no message type shop.None"), "{}", unknown.stderr);
}

#[tokio::test]
async fn apicurios_serializers_for_java_and_the_codecs_agree() {
    for format in ["avro", "json-schema"] {
        let topic = Topic::new(format).await;
        let written = contents(&topic.java("write"));
        assert_eq!(written.len(), 20);
        assert_eq!(contents(&topic.ktables(&["dump"])), written, "{format}");
        let mut value = written["k20"].clone();
        value["note"] = json!("changed");
        value["extra"] = json!(5);
        topic.check_written(&value, || topic.java("read"));
    }
}

#[tokio::test]
async fn a_schema_is_added_only_if_that_is_allowed() {
    let topic = Topic::new("avro").await;
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]}"#;
    topic.configure(&format!("config = {{ schema = '{schema}' }}"));
    let refused = topic.ktables(&["set", "a", r#"{"n": 1}"#]);
    assert!(refused.code == 1 && refused.stderr.contains("register = true"), "{}", refused.stderr);
    topic.configure(&format!(
        "register = true\nconfig = {{ schema = '{schema}', write = {{ framing = 'header' }} }}"
    ));
    let set = topic.ktables(&["set", "a", r#"{"n": 9007199254740993}"#]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert_eq!(contents(&topic.ktables(&["dump"]))["a"].to_string(), r#"{"n":9007199254740993}"#);

    // A change that is not compatible.
    let subject = format!("{}-value", topic.name);
    let registry = schema_registry();
    let compat = run(&mut ktables(&["schema", "compat", "set", "FULL", &subject, "--registry", &registry]));
    assert_eq!(compat.code, 0, "{}", compat.stderr);
    let other = schema.replace("long", "string");
    topic.configure(&format!("register = true\nconfig = {{ schema = '{other}' }}"));
    let refused = topic.ktables(&["set", "a", r#"{"n": "x"}"#]);
    assert!(refused.code == 1 && refused.stderr.contains("409"), "{}", refused.stderr);
}

#[tokio::test]
async fn keys_have_one_id() {
    let topic = Topic::new("avro").await;
    let table = |codec: &str| {
        topic.configure(codec);
        let path = topic.folder.path().join("ktables.toml");
        let text = std::fs::read_to_string(&path).unwrap() + "key_codec = \"own\"\n";
        std::fs::write(path, text.replace("value_codec = \"own\"\n", "")).unwrap();
    };
    table("");
    let refused = topic.ktables(&["dump"]);
    assert!(
        refused.code == 2 && refused.stderr.contains("set write.id or write.version"),
        "{}",
        refused.stderr
    );
    let file = topic.folder.path().join("key.avsc");
    std::fs::write(&file, "\"string\"").unwrap();
    let subject = format!("{}-key", topic.name);
    let add = run(ktables(&["schema", "add", &subject, "--registry", &schema_registry()]).arg(&file));
    assert_eq!(add.code, 0, "{}", add.stderr);
    table("config = { write = { version = 1 } }");
    let set = topic.ktables(&["set", "a key", "1"]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert_eq!(contents(&topic.ktables(&["dump"])), Contents::from([("a key".to_owned(), json!(1))]));
}

#[tokio::test]
async fn values_without_an_id_have_the_schema_of_the_configuration() {
    let topic = Topic::new("avro").await;
    topic.configure("config = { plain = { type = \"map\", values = [\"null\", \"int\"] } }");
    let set = topic.ktables(&["set", "a", r#"{"x": 1, "y": null}"#]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert_eq!(contents(&topic.ktables(&["dump"]))["a"], json!({ "x": 1, "y": null }));
    topic.configure("config = { plain = \"no schema\" }");
    let refused = topic.ktables(&["dump"]);
    assert!(refused.code == 2 && refused.stderr.contains("plain is no Avro schema"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_topic_is_read_without_a_configuration() {
    let topic = Topic::new("json-schema").await;
    let written = contents(&topic.python("write"));
    let log = format!("kafka://{}", shared());
    let registry = schema_registry();
    let table = ["--log", &log, "--topic", &topic.name, "--value-codec", "json-schema"];
    let cache = topic.folder.path().join("cache");
    let dump =
        |args: &[&str]| run(ktables(&["dump"]).args(table).args(args).env("KTABLES_CACHE_DIR", &cache));
    assert_eq!(contents(&dump(&["--schema-registry", &registry])), written);
    let refused = run(ktables(&["dump"]).args(&table[..4]).args(["--schema-registry", &registry]));
    assert!(refused.code == 2 && refused.stderr.contains("--schema-registry is only for components"));
    let refused = dump(&["--schema-registry", "test"]);
    assert!(refused.code == 2 && refused.stderr.contains("there is no schema registry `test`"));
}

/// A schema for each codec, values, and the bytes of a key as base64.
const PLAIN: [(&str, &str, &[&str], &str); 3] = [
    (
        "avro",
        r#"{"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]}"#,
        &[r#"{"n":1}"#, r#"{"n":-9223372036854775808}"#],
        "Ag==",
    ),
    (
        "json-schema",
        r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}"#,
        &[r#"{"n":1}"#, r#"{"n":2,"x":[null]}"#],
        "eyJuIjoxfQ==",
    ),
    (
        "protobuf",
        "syntax = \"proto3\"; message M { int64 n = 1; repeated M m = 2; map<string, bytes> b = 3; }",
        &[r#"{"n":"1"}"#, r#"{"n":"-5","m":[{}],"b":{"a":"AA=="}}"#],
        "CAE=",
    ),
];

#[test]
fn the_codecs_are_part_of_the_command() {
    let folder = TempDir::new().unwrap();
    for (codec, schema, values, key) in PLAIN {
        let inspected = succeed(&mut ktables(&["codec", "inspect", codec])).json().remove(0);
        assert_eq!(
            (&inspected["name"], &inspected["sandbox"]),
            (&json!(codec), &json!("pure")),
            "{inspected}"
        );
        assert!(inspected["imports"].to_string().contains("ktables:codec/schemas@"), "{inspected}");

        let log = format!("dir:{}", folder.path().display());
        let table = ["--log", &log, "--topic", codec];
        succeed(ktables(&["topic", "ensure"]).args(table));
        let config = json!({ "plain": schema }).to_string();
        let table = [&table[..], &["--value-codec", codec, "--value-codec-config", &config]].concat();
        for value in values {
            succeed(ktables(&["set", value, value]).args(&table));
            let found = succeed(ktables(&["get", value]).args(&table));
            assert_eq!(found.stdout.trim_end(), *value);
        }
        let refused = run(ktables(&["set", "k", r#"{"n": "x"}"#]).args(&table));
        assert_eq!(refused.code, 1, "{codec}: {}", refused.stderr);
        let keys = folder.path().join("keys.ndjson");
        std::fs::write(&keys, json!({ "kind": "key", "raw": key }).to_string()).unwrap();
        let mut check = ktables(&["codec", "check", codec, "--config", &config, "--samples"]);
        let checked = run(check.arg(format!("{log}/{codec}")).arg("--samples").arg(keys));
        assert_eq!(checked.code, 0, "{codec}: {}", checked.stdout);
    }
    // A section with one of these names takes its place, and a digest pins what the command has.
    let config = folder.path().join("ktables.toml");
    let table =
        "[logs.l]\nurl = \"dir:.\"\n[tables.t]\nlog = \"l\"\ntopic = \"avro\"\nvalue_codec = \"avro\"\n";
    let (none, wrong) = ("", format!("component = \"avro\"\ndigest = \"sha256:{}\"", "0".repeat(64)));
    for (section, expected) in [
        (none, "does not begin with 0 and the id of a schema"),
        (wrong.as_str(), "but sha256:0000"),
        ("component = \"./avro\"", "cannot read the component"),
    ] {
        let section = if section.is_empty() { String::new() } else { format!("[codecs.avro]\n{section}\n") };
        std::fs::write(&config, section + table).unwrap();
        let output = run(ktables(&["rejects", "-t", "t"]).arg("--config").arg(&config));
        let text = output.stdout + &output.stderr;
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let unknown =
        run(&mut ktables(&["dump", "--log", "dir:.", "--topic", "t", "--value-codec", "protobuff"]));
    assert!(unknown.code == 2 && unknown.stderr.contains("did you mean `protobuf`?"), "{}", unknown.stderr);
}

#[test]
fn deep_values_and_schemas_fit_into_the_sandbox() {
    let folder = TempDir::new().unwrap();
    let log = format!("dir:{}", folder.path().display());
    let nest = |levels: usize, open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
    };
    let recursive = r#"{"type": "record", "name": "A", "fields": [{"name": "a", "type": ["null", "A"]}]}"#;
    let json = r##"{"properties": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}}"##;
    for (codec, schema, value) in [
        ("avro", recursive.to_owned(), nest(90, r#"{"a":"#, r#"{"a":null}"#, "}")),
        ("json-schema", json.to_owned(), nest(90, r#"{"a":"#, "{}", "}")),
        (
            "protobuf",
            "syntax = \"proto3\"; message A { A a = 1; }".to_owned(),
            nest(90, r#"{"a":"#, "{}", "}"),
        ),
        ("avro", nest(80, r#"{"type": "array", "items": "#, "\"int\"", "}"), "[]".to_owned()),
        ("json-schema", nest(99, r#"{"not": "#, r#"{"type": "null"}"#, "}"), "1".to_owned()),
        ("protobuf", format!("syntax = \"proto3\"; {}", nest(30, "message A { ", "", "}")), "{}".to_owned()),
    ] {
        let topic = unique(codec);
        let config = json!({ "plain": schema }).to_string();
        let table =
            ["--log", &log, "--topic", &topic, "--value-codec", codec, "--value-codec-config", &config];
        succeed(ktables(&["topic", "ensure"]).args(&table[..4]));
        succeed(ktables(&["set", "k", &value]).args(table));
        let found = succeed(ktables(&["get", "k"]).args(table));
        assert_eq!(found.stdout.trim_end(), value, "{codec}");
    }
    // What is too deep is refused with a reason.
    for (codec, schema) in [
        ("avro", nest(2000, r#"{"type": "array", "items": "#, "\"int\"", "}")),
        ("json-schema", nest(2000, r#"{"not": "#, "{}", "}")),
        ("protobuf", format!("syntax = \"proto3\"; {}", nest(2000, "message A { ", "", "}"))),
    ] {
        let config = json!({ "plain": schema }).to_string();
        let mut dump = ktables(&["dump", "--log", &log, "--topic", "none", "--value-codec", codec]);
        let refused = run(dump.args(["--value-codec-config", &config]));
        assert!(refused.code == 2 && refused.stderr.contains("plain"), "{codec}: {}", refused.stderr);
    }
}
