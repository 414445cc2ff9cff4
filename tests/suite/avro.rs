//! The codec for Avro, with a real registry, and Confluent's client for Python as the other side.

use std::collections::BTreeMap;
use std::process::Command;

use ktables_tests::kafka::{schema_registry, shared, target};
use ktables_tests::{CommandOutput, component_path, kafka, ktables, root, run, unique};
use serde_json::{Value, json};
use tempfile::TempDir;

type Contents = BTreeMap<String, Value>;

fn contents(output: &CommandOutput) -> Contents {
    assert_eq!(output.code, 0, "{}", output.stderr);
    let entry = |mut entry: Value| (entry["key"].as_str().unwrap().to_owned(), entry["value"].take());
    output.json().into_iter().map(entry).collect()
}

/// A topic, and what its peers need to read and write it.
struct Topic {
    name: String,
    folder: TempDir,
}

impl Topic {
    async fn new() -> Self {
        let topic = Self { name: unique("avro"), folder: TempDir::new().unwrap() };
        kafka::create(&shared(), &topic.name, 2, &[("cleanup.policy", "compact")]).await;
        topic.configure("");
        topic
    }

    fn configure(&self, codec: &str) {
        let text = format!(
            "[logs.kafka]\nurl = \"kafka://{}\"\n[schema_registries.test]\nurl = \"{}\"\n\
             [codecs.avro]\ncomponent = \"{}\"\nschema_registry = \"test\"\n{codec}\n\
             [tables.t]\nlog = \"kafka\"\ntopic = \"{}\"\nvalue_codec = \"avro\"\n",
            shared(),
            schema_registry(),
            component_path("avro").display(),
            self.name
        );
        std::fs::write(self.folder.path().join("ktables.toml"), text).unwrap();
    }

    /// Runs a command with a cache of its own: the ids of a registry in memory begin again with each start.
    fn ktables(&self, args: &[&str]) -> CommandOutput {
        let mut command = ktables(args);
        let config = self.folder.path().join("ktables.toml");
        command.arg("--config").arg(config).args(["-t", "t"]);
        run(command.env("KTABLES_CACHE_DIR", self.folder.path().join("cache")))
    }

    fn python(&self, action: &str) -> CommandOutput {
        let python = target().join("tools/python/bin/python");
        assert!(python.exists(), "{} is missing: run `cargo xtask setup`", python.display());
        let mut command = Command::new(python);
        command.arg(root().join("tests/interop/avro_peer.py"));
        run(command.args([action, &schema_registry(), &shared(), &self.name]))
    }
}

#[tokio::test]
async fn confluents_client_for_python_and_the_codec_agree() {
    let topic = Topic::new().await;
    let written = contents(&topic.python("write"));
    assert_eq!(written.len(), 41);
    let read = contents(&topic.ktables(&["dump"]));
    for (key, value) in &written {
        assert_eq!(read.get(key), Some(value), "{key}");
    }

    // Python writes the newest version, so we do, too.
    let mut value = written["k20"].clone();
    value["note"] = json!("changed");
    value["next"] = json!({ "order": null });
    let set = topic.ktables(&["set", "k1", &value.to_string()]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    let (theirs, ours) = (contents(&topic.python("read")), contents(&topic.ktables(&["dump"])));
    assert_eq!((&theirs["k1"], &ours["k1"]), (&value, &value));
    assert_eq!(theirs, ours);

    let missing = topic.ktables(&["set", "k1", r#"{"id": 1}"#]);
    assert!(missing.code == 1 && missing.stderr.contains("$.color is missing"), "{}", missing.stderr);
    topic.configure("config = { write = { version = 9 } }");
    let unknown = topic.ktables(&["set", "k1", &value.to_string()]);
    assert!(unknown.code == 1 && unknown.stderr.contains("unknown schema"), "{}", unknown.stderr);
}

#[tokio::test]
async fn a_schema_is_added_only_if_that_is_allowed() {
    let topic = Topic::new().await;
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
    let topic = Topic::new().await;
    let table = |codec: &str| {
        topic.configure(codec);
        let path = topic.folder.path().join("ktables.toml");
        let text = std::fs::read_to_string(&path).unwrap() + "key_codec = \"avro\"\n";
        std::fs::write(path, text.replace("value_codec = \"avro\"\n", "")).unwrap();
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
    let topic = Topic::new().await;
    topic.configure("config = { plain = { type = \"map\", values = [\"null\", \"int\"] } }");
    let set = topic.ktables(&["set", "a", r#"{"x": 1, "y": null}"#]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert_eq!(contents(&topic.ktables(&["dump"]))["a"], json!({ "x": 1, "y": null }));
    topic.configure("config = { plain = \"no schema\" }");
    let refused = topic.ktables(&["dump"]);
    assert!(refused.code == 2 && refused.stderr.contains("plain is no Avro schema"), "{}", refused.stderr);
}
