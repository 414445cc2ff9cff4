//! Components that look schemas up in a schema registry: one that answers what a test wants, and a real one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ktables::log::{EnsureTopic, Log, NewRecord, NewTopic, ensure_topic};
use ktables_tests::server::{Server, write_config};
use ktables_tests::{
    CommandOutput, FakeRegistry, TIMEOUT, avro, component_path, eventually, kafka, ktables, not_found, run,
    succeed, unique,
};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a log, a configuration, and a table `t` whose values are of the guest `schema-user`.
struct Setup {
    folder: TempDir,
    log: std::sync::Arc<dyn Log>,
}

impl Setup {
    async fn new(registry: &str, codec: &str, partitions: i32) -> Self {
        let folder = TempDir::new().unwrap();
        let text = format!(
            "[schema_registries.test]\nurl = \"{registry}\"\n\
             [codecs.user]\ncomponent = \"{}\"\nschema_registry = \"test\"\n{codec}\n\
             [tables.t]\nlog = \"local\"\ntopic = \"t\"\nvalue_codec = \"user\"\n",
            component_path("schema-user").display()
        );
        write_config(folder.path(), &text);
        let log = ktables::log::open(&format!("dir:{}", folder.path().join("data").display())).unwrap();
        let new = NewTopic { partitions: Some(partitions), ..NewTopic::default() };
        ensure_topic(&*log, "t", &EnsureTopic { new, ..EnsureTopic::default() }).await.unwrap();
        Self { folder, log }
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("ktables.toml")
    }

    /// Writes values with ids of schemas.
    async fn write(&self, values: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let topic = self.log.describe("t").await.unwrap();
        let mut acks = Vec::new();
        for (key, value) in values {
            let record =
                NewRecord { key: Some(key.into_bytes()), value: Some(value), ..NewRecord::default() };
            acks.push(self.log.send(&topic, record).await.unwrap());
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }

    fn command(&self, args: &[&str]) -> CommandOutput {
        let config = self.config();
        run(ktables(args).args(["--config", config.to_str().unwrap(), "-t", "t"]))
    }

    async fn serve(&self) -> Server {
        let server = Server::start(&self.config());
        // It is written once the tables are open.
        let file = self.folder.path().join(".ktables-admin-token");
        let read = || std::fs::read_to_string(&file).ok().filter(|token| token.ends_with('\n'));
        let token = eventually("the token is written", read);
        server.with(Client::new(), Some(token.trim()))
    }
}

fn value(id: u32, text: &str) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), text.as_bytes()].concat()
}

async fn described(server: &Server) -> Value {
    server.get("/v1/tables/t").await.json()
}

/// Waits until the description of the table satisfies a condition.
async fn wait_until(server: &Server, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let table = described(server).await;
        if condition(&table) {
            return table;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: {table}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_until_caught_up(server: &Server) -> Value {
    wait_until(server, "caught up", |table| table["status"] == "caught_up").await
}

async fn entries(server: &Server) -> BTreeMap<String, Value> {
    let answer = server.get("/v1/tables/t/snapshot?format=object&fresh=true&timeout=30s").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_value(answer.json()).unwrap()
}

#[tokio::test]
async fn schemas_of_a_real_registry_decode_and_encode() {
    let registry = kafka::schema_registry();
    let (subject, other) = (unique("orders"), unique("color"));
    let folder = TempDir::new().unwrap();
    // The ids of a registry in memory begin again with each start, and the cache outlives it.
    let schema = |args: &[&str]| {
        let output = run(ktables(&["schema"]).args(args).env("KTABLES_SCHEMA_REGISTRY", &registry));
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.json().remove(0)["id"].as_u64().unwrap()
    };
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let color = file("color.avsc", r#"{"type": "enum", "name": "Color", "symbols": ["RED"]}"#);
    schema(&["add", &other, &color]);
    let car = r#"{"type": "record", "name": "Car", "fields": [{"name": "color", "type": "Color"}]}"#;
    let car = file("car.avsc", car);
    let id = schema(&["add", &subject, &car, "--reference", &format!("Color={other}@1")]);
    let id = u32::try_from(id).unwrap();

    let added = r#"{"type": "string"}"#;
    let config = format!("register = true\nconfig = {{ subject = \"{subject}-new\", register = '{added}' }}");
    let setup = Setup::new(&registry, &config, 1).await;
    setup.write([("a".to_owned(), value(id, "x"))]).await;
    let cache = TempDir::new().unwrap();
    let config = setup.config();
    let command = |args: &[&str]| {
        let mut command = ktables(args);
        command.args(["--config", config.to_str().unwrap(), "-t", "t"]);
        succeed(command.env("KTABLES_CACHE_DIR", cache.path().join("private")))
    };
    let found = command(&["get", "a"]).json().remove(0);
    assert_eq!((&found["references"], &found["text"]), (&json!(["Color"]), &json!("x")));
    assert!(found["schema"].as_str().unwrap().contains("\"Car\""), "{found}");

    // Writing adds the schema, and the host decodes what the guest has encoded: so `--verify` is off.
    command(&["set", "b", r#"{"text": "y"}"#, "--verify", "decodes"]);
    let found = command(&["get", "b"]).json().remove(0);
    assert_eq!((&found["schema"], &found["text"]), (&json!(added), &json!("y")));
    let versions =
        run(ktables(&["schema", "versions", &format!("{subject}-new")]).args(["--registry", &registry]));
    assert_eq!(versions.json().len(), 1, "{}", versions.stderr);
}

#[tokio::test]
async fn two_schemas_cause_two_requests() {
    let registry = FakeRegistry::start(|path| avro(&format!("\"{path}\"")));
    let setup = Setup::new(&registry.url(), "", 4).await;
    setup.write((0..2000).map(|n| (format!("k{n}"), value(1 + n % 2, "x")))).await;
    let server = setup.serve().await;
    wait_until_caught_up(&server).await;
    assert_eq!(entries(&server).await.len(), 2000);
    let mut requests = registry.requests();
    requests.sort();
    assert_eq!(requests, ["schemas/ids/1", "schemas/ids/2"]);
}

#[tokio::test]
async fn records_with_unknown_schemas_are_rejected_until_the_registry_has_them() {
    let ids = if ktables_tests::is_long_run() { 10_000 } else { 1000 };
    let registry = FakeRegistry::start(|path| match path {
        "schemas/ids/1" => avro("\"a\""),
        _ => not_found(),
    });
    let setup = Setup::new(&registry.url(), "", 2).await;
    setup.write((0..ids).map(|n| (format!("k{n}"), value(n, "x")))).await;
    let server = setup.serve().await;
    let table = wait_until_caught_up(&server).await;
    assert_eq!(table["rejects"], json!({ "unknown schema": ids - 1 }), "{table}");
    assert_eq!(entries(&server).await.len(), 1);
    let requests = registry.requests();
    assert!(requests.len() as u32 <= ids, "{} requests for {ids} ids", requests.len());
    let rejects = server.get("/v1/tables/t/rejects?limit=1").await.text;
    assert!(rejects.contains("does not have the schema with id"), "{rejects}");

    registry.answer(|_| avro("\"b\""));
    let decode =
        || server.request(Method::POST, "/v1/tables/t/rejects:decode?limit=1").body(r#"{"value": "user"}"#);
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let answer = server.send(decode()).await;
        if answer.json()["accepted"] == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Follows a topic while its registry does something wrong, and checks that nothing is lost or rejected.
async fn outage(wrong: impl Fn(&str) -> (u16, String) + Send + Sync + 'static, expected: &str) {
    let registry = FakeRegistry::start(|path| avro(&format!("\"{path}\"")));
    let setup = Setup::new(&registry.url(), "", 1).await;
    setup.write([("a".to_owned(), value(1, "x"))]).await;
    let server = setup.serve().await;
    wait_until_caught_up(&server).await;
    registry.answer(wrong);
    setup.write([("b".to_owned(), value(2, "y"))]).await;
    let table = wait_until(&server, expected, |table| table.to_string().contains(expected)).await;
    assert_eq!(table["status"], "degraded", "{table}");
    registry.answer(|path| avro(&format!("\"{path}\"")));
    let table = wait_until_caught_up(&server).await;
    assert_eq!(table["rejects"], json!({}), "{table}");
    assert_eq!(entries(&server).await.len(), 2);
}

#[tokio::test]
async fn a_registry_that_answers_wrongly_rejects_no_record() {
    let error = |status: u16| move |_: &str| (status, "<html>busy</html>".to_owned());
    let large = format!("\"{}\"", "x".repeat(10 << 20));
    let circle = |_: &str| {
        let reference = json!({ "name": "a", "subject": "s", "version": 1 });
        (
            200,
            json!({ "schema": "{}", "subject": "s", "version": 1, "id": 1, "references": [reference] })
                .to_string(),
        )
    };
    tokio::join!(
        outage(error(500), "schema registry unreachable since"),
        outage(error(429), "schema registry unreachable since"),
        outage(error(200), "does not answer like a schema registry"),
        outage(error(404), "does not answer like a schema registry"),
        outage(error(401), "refuses access"),
        outage(move |_| avro(&large), "the answer has more than"),
        outage(circle, "refers to itself"),
    );
}

#[tokio::test]
async fn a_table_waits_for_its_registry_and_goes_on_by_itself() {
    let mut registry = FakeRegistry::start(|path| avro(&format!("\"{path}\"")));
    registry.stop();
    let setup = Setup::new(&registry.url(), "config = { subject = \"s\" }", 2).await;
    setup.write((0..100).map(|n| (format!("k{n}"), value(1, "x")))).await;
    let late = setup.command(&["get", "k1", "--catchup-timeout", "2s"]);
    assert!(late.code == 4 && late.stderr.contains("schema registry unreachable since"), "{}", late.stderr);
    let server = setup.serve().await;
    assert_ne!(described(&server).await["status"], "caught_up");
    registry.restart();
    wait_until_caught_up(&server).await;
    assert_eq!(entries(&server).await.len(), 100);

    // While following: records with known ids go on, and those with new ones wait.
    registry.stop();
    setup.write([("known".to_owned(), value(1, "y"))]).await;
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while server.get("/v1/tables/t/entry?key=known").await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline);
    }
    setup.write([("new".to_owned(), value(2, "z"))]).await;
    let unreachable = |table: &Value| table.to_string().contains("schema registry unreachable since");
    let table = wait_until(&server, "down while following", unreachable).await;
    assert_eq!(table["status"], "degraded", "{table}");
    registry.restart();
    wait_until_caught_up(&server).await;
    assert_eq!(entries(&server).await.len(), 102);

    // While writing: nothing is written, and the answer says why.
    registry.stop();
    let put =
        || server.request(Method::PUT, "/v1/tables/t/entry?key=w&visible=true").body(r#"{"text": "w"}"#);
    let refused = server.send(put()).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("schema registry unreachable since"), "{}", refused.text);
    registry.answer(|path| match path {
        "subjects/s/versions/latest" => {
            (200, json!({ "subject": "s", "version": 1, "id": 1, "schema": "\"schemas/ids/1\"" }).to_string())
        }
        path => avro(&format!("\"{path}\"")),
    });
    registry.restart();
    let table = wait_until_caught_up(&server).await;
    assert_eq!(table["rejects"], json!({}), "{table}");
}

#[tokio::test]
async fn a_registry_that_ends_while_a_topic_loads_delays_it() {
    const RECORDS: u32 = 200_000;
    let mut registry = FakeRegistry::start(|path| match path {
        "schemas/ids/0" | "schemas/ids/1" => avro("\"early\""),
        _ => (503, "busy".to_owned()),
    });
    let setup = Setup::new(&registry.url(), "", 4).await;
    setup.write((0..RECORDS).map(|n| (format!("k{n}"), value(n / (RECORDS / 20), "x")))).await;
    let server = setup.serve().await;
    let is_waiting = |table: &Value| {
        table["entries"].as_u64() > Some(0) && table.to_string().contains("schema registry unreachable since")
    };
    let table = wait_until(&server, "waiting for the registry", is_waiting).await;
    assert_ne!(table["status"], "caught_up", "{table}");
    registry.stop();
    registry.answer(|path| avro(&format!("\"{path}\"")));
    registry.restart();
    let table = wait_until_caught_up(&server).await;
    assert_eq!((&table["rejects"], &table["entries"]), (&json!({}), &json!(RECORDS)), "{table}");
    assert!(registry.requests().len() < 200, "{} requests", registry.requests().len());
}

#[tokio::test]
async fn a_slow_registry_delays_a_table() {
    let slow = |pause: Duration| {
        move |path: &str| {
            std::thread::sleep(pause);
            avro(&format!("\"{path}\""))
        }
    };
    let registry = FakeRegistry::start(slow(Duration::from_millis(50)));
    let setup = Setup::new(&registry.url(), "", 1).await;
    let text = std::fs::read_to_string(setup.config()).unwrap();
    let limited = text.replace("[codecs.user]", "timeout = \"1s\"\n[codecs.user]");
    std::fs::write(setup.config(), limited).unwrap();
    setup.write((0..200).map(|n| (format!("k{n}"), value(n % 20, "x")))).await;
    let server = setup.serve().await;
    wait_until_caught_up(&server).await;
    // Slower than it may be.
    registry.answer(slow(Duration::from_secs(3)));
    setup.write([("late".to_owned(), value(99, "y"))]).await;
    let unreachable = |table: &Value| table.to_string().contains("schema registry unreachable since");
    wait_until(&server, "no answer in time", unreachable).await;
    registry.answer(slow(Duration::ZERO));
    let table = wait_until_caught_up(&server).await;
    assert_eq!(table["rejects"], json!({}), "{table}");
    assert_eq!(entries(&server).await.len(), 201);
}

#[tokio::test]
async fn a_topic_of_schemas_is_a_registry() {
    let folder = TempDir::new().unwrap();
    let text = "[codecs.events]\ncomponent = \"json-schema\"\nschema_registry = { table = \"schemas\" }\n\
                config = { envelope = true, write = { subject = \"Event\" } }\n\
                [tables.schemas]\nlog = \"local\"\ntopic = \"app__schema__Event\"\n\
                [tables.raw]\nlog = \"local\"\ntopic = \"events\"\nverify = \"off\"\n\
                [tables.events]\nlog = \"local\"\ntopic = \"events\"\nvalue_codec = \"events\"\n";
    write_config(folder.path(), text);
    let config = folder.path().join("ktables.toml");
    let command = |args: &[&str]| run(ktables(args).arg("--config").arg(&config));
    let log = format!("dir:{}", folder.path().join("data").display());
    for topic in ["app__schema__Event", "events"] {
        succeed(&mut ktables(&["topic", "ensure", "--log", &log, "--topic", topic]));
    }
    let done = |args: &[&str]| assert_eq!(command(args).code, 0, "{args:?}: {}", command(args).stderr);
    done(&["set", "1", r#"{"required": ["id"]}"#, "-t", "schemas"]);
    done(&["set", "2", r#"{"required": ["id", "name"]}"#, "-t", "schemas"]);
    for (key, value) in [
        ("old", r#"{"schema": "Event:1", "data": {"id": 1.0}}"#),
        ("wrong", r#"{"schema": "Event:2", "data": {"id": 1}}"#),
        ("unknown", r#"{"schema": "Event:3", "data": {}}"#),
        ("other", r#"{"schema": "Other:1", "data": {}}"#),
        ("none", "{}"),
    ] {
        done(&["set", key, value, "-t", "raw"]);
    }
    let dump = command(&["dump", "-t", "events"]);
    assert_eq!(dump.json().len(), 1, "{} {}", dump.stdout, dump.stderr);
    assert!(dump.stdout.contains(r#""value":{"id": 1.0}"#), "{}", dump.stdout);
    let rejects = command(&["rejects", "-t", "events"]).stdout;
    for expected in [
        "(required)",
        "the table of schemas schemas has no version 3 of Event",
        "the table of schemas schemas has no version 1 of Other",
        "it is not {",
    ] {
        assert!(rejects.contains(expected), "{expected}: {rejects}");
    }
    assert_eq!(rejects.matches("\"unknown schema\"").count(), 2, "{rejects}");

    done(&["set", "new", r#"{"id": 2, "name": "x"}"#, "-t", "events"]);
    let raw = command(&["get", "new", "-t", "raw"]);
    assert_eq!(raw.stdout.trim_end(), r#"{"schema":"Event:2","data":{"id": 2, "name": "x"}}"#);
    let refused = command(&["set", "new", r#"{"id": 2}"#, "-t", "events"]);
    assert!(refused.code == 1 && refused.stderr.contains("(required)"), "{}", refused.stderr);
    done(&["set", "3", "{}", "-t", "schemas"]);
    assert_eq!(command(&["dump", "-t", "events"]).json().len(), 3);

    let circle = text.replace("app__schema__Event\"\n", "app__schema__Event\"\nvalue_codec = \"events\"\n");
    write_config(folder.path(), &circle);
    let refused = command(&["dump", "-t", "events"]);
    assert!(
        refused.code == 2 && refused.stderr.contains("a table of schemas has keys in utf8"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn known_schemas_outlive_the_registry_and_never_change() {
    let mut registry = FakeRegistry::start(|_| avro("\"first\""));
    let setup = Setup::new(&registry.url(), "", 1).await;
    setup.write([("a".to_owned(), value(7, "x"))]).await;
    let get = || setup.command(&["get", "a"]);
    assert_eq!(get().code, 0, "{}", get().stderr);
    registry.stop();
    let found = get();
    assert_eq!((found.code, &found.json()[0]["schema"]), (0, &json!("\"first\"")), "{}", found.stderr);

    registry.answer(|_| avro("\"second\""));
    registry.restart();
    let changed = setup.command(&["get", "a", "--catchup-timeout", "2s"]);
    let expected = "has another schema now than before for the schema with id 7";
    assert!(changed.code == 4 && changed.stderr.contains(expected), "{}", changed.stderr);
    let file = changed.stderr.split("delete ").nth(1).unwrap().split(".json").next().unwrap();
    std::fs::remove_file(Path::new(&format!("{file}.json"))).unwrap();
    let found = get();
    assert_eq!((found.code, &found.json()[0]["schema"]), (0, &json!("\"second\"")), "{}", found.stderr);
}

#[tokio::test]
async fn what_a_codec_may_not_ask_is_refused() {
    let registry = FakeRegistry::start(|path| avro(&format!("\"{path}\"")));
    let setup = Setup::new(&registry.url(), "config = { subject = \"s\", register = \"{}\" }", 1).await;
    let refused = setup.command(&["set", "a", r#"{"text": "x"}"#]);
    assert!(refused.code == 1 && refused.stderr.contains("set register = true"), "{}", refused.stderr);
    assert_eq!(registry.requests(), Vec::<String>::new());

    let setup = Setup::new(&registry.url(), "config = { early = true }", 1).await;
    let refused = setup.command(&["dump"]);
    assert!(refused.stderr.contains("in decode and encode only"), "{}", refused.stderr);

    // Without a registry, each record is rejected, and the reason says what to do.
    let setup = Setup::new(&registry.url(), "", 1).await;
    setup.write([("a".to_owned(), value(1, "x"))]).await;
    let text = std::fs::read_to_string(setup.config()).unwrap();
    std::fs::write(setup.config(), text.replace("schema_registry = \"test\"\n", "")).unwrap();
    let rejects = setup.command(&["rejects"]);
    assert!(rejects.stdout.contains("no schema registry is configured"), "{}", rejects.stdout);
    std::fs::write(setup.config(), text.replace("schema_registry = \"test\"", "schema_registry = \"tset\""))
        .unwrap();
    let refused = setup.command(&["dump"]);
    assert!(refused.code == 2 && refused.stderr.contains("did you mean `test`?"), "{}", refused.stderr);
}
