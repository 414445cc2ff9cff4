//! What each kind of read answers, by the status of the table and what it has of a key.

use std::time::Duration;

use ktables_tests::server::{Answer, Server, write_config};
use ktables_tests::{TIMEOUT, component_path, ktables, run_with_stdin, succeed};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

/// All keys are of members of the group `g`.
const GROUPS: &str = "group_scheme = \"length-prefixed\"\n";

/// Returns the key of a member of the group `g`.
fn key_of(member: &str) -> String {
    format!("1:g{member}")
}

/// A status of a table, and how much staleness a request tolerates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    CaughtUp,
    Degraded,
    /// Degraded, and not for longer than the request tolerates.
    Tolerated,
    Failed,
    Loading,
}

impl State {
    /// The table with this status, and a parameter of each request.
    fn table(self) -> (&'static str, &'static str) {
        match self {
            Self::CaughtUp => ("good", ""),
            Self::Degraded => ("full", ""),
            Self::Tolerated => ("full", "&max_staleness=1h"),
            Self::Failed => ("halted", ""),
            Self::Loading => ("loading", ""),
        }
    }

    /// The answer for something that the table does not have.
    fn absent(self) -> (u16, &'static str) {
        match self {
            Self::CaughtUp | Self::Tolerated => (404, "not-found"),
            Self::Degraded => (503, "degraded"),
            Self::Failed => (503, "failed"),
            Self::Loading => (503, "loading"),
        }
    }

    /// Whether the table has contents that can be listed.
    fn has_contents(self) -> bool {
        matches!(self, Self::CaughtUp | Self::Degraded | Self::Tolerated)
    }
}

async fn wait_for_status(server: &Server, table: &str, status: &str) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let described = server.get(&format!("/v1/tables/{table}")).await.json();
        if described["status"] == status {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{table}: {described}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn produce(folder: &TempDir, topic: &str, key: &str, value: &str, args: &[&str]) {
    let log = format!("dir:{}", folder.path().join("data").display());
    let mut produce = ktables(&["produce", "--log", &log, "--topic", topic, "--key", key, "--value", value]);
    let produced = run_with_stdin(produce.args(args), "");
    assert_eq!(produced.code, 0, "{}", produced.stderr);
}

fn create_topic(folder: &TempDir, topic: &str) {
    let log = format!("dir:{}", folder.path().join("data").display());
    succeed(&mut ktables(&["topic", "ensure", "--log", &log, "--topic", topic]));
}

/// Starts a server with a table that takes long to load: a codec loops over its records, for two seconds each.
async fn start_loading() -> (Server, TempDir) {
    let folder = TempDir::new().unwrap();
    create_topic(&folder, "loading");
    for n in 0..12 {
        produce(&folder, "loading", &key_of(&n.to_string()), "poison:loop", &[]);
    }
    let hostile = component_path("hostile").display().to_string();
    let config = format!(
        "[codecs.hostile]\ncomponent = \"{hostile}\"\nlimits = {{ deadline = \"2s\" }}\n[tables.loading]\nlog = \"local\"\n\
         topic = \"loading\"\nvalue_codec = \"hostile\"\n{GROUPS}"
    );
    let server = Server::start(&write_config(folder.path(), &config));
    wait_for_status(&server, "loading", "loading").await;
    (server, folder)
}

/// Starts a server with tables in the other statuses. Each has the keys `present`, `expired` and `rejected`.
async fn start() -> (Server, TempDir) {
    let folder = TempDir::new().unwrap();
    let mut config = String::new();
    for (name, setting) in
        [("good", ""), ("full", "memory_limit = \"1MiB\"\n"), ("halted", "on_reject = \"halt\"\n")]
    {
        create_topic(&folder, name);
        config.push_str(&format!(
            "[tables.{name}]\nlog = \"local\"\ntopic = \"{name}\"\nttl = \"1h\"\n{GROUPS}{setting}"
        ));
    }
    let server = Server::start(&write_config(folder.path(), &config));
    for name in ["good", "full", "halted"] {
        wait_for_status(&server, name, "caught_up").await;
        produce(&folder, name, &key_of("present"), "1", &[]);
        produce(&folder, name, &key_of("expired"), "1", &["--timestamp", "1"]);
        produce(&folder, name, &key_of("rejected"), "not json", &[]);
    }
    let filler = format!("\"{}\"", "x".repeat(64 << 10));
    let lines: String = (0..40)
        .map(|n| format!("{}\n", json!({ "key": format!("1:ffiller-{n}"), "value": filler })))
        .collect();
    let filling = server.request(Method::POST, "/v1/tables/full/entries:write").body(lines);
    assert_eq!(server.send(filling).await.status, 200);
    for (name, status) in [("full", "degraded"), ("halted", "failed")] {
        wait_for_status(&server, name, status).await;
    }
    assert_eq!(server.get("/v1/tables/good/entry?key=1:gabsent&fresh=true").await.status, 404);
    (server, folder)
}

fn assert_answer(answer: &Answer, expected: (u16, &str), what: &str) {
    assert_eq!(answer.status, expected.0, "{what}: {}", answer.text);
    if answer.status >= 400 {
        assert_eq!(answer.problem(), expected.1, "{what}");
    }
    let has_status = !answer.header("ktables-status").is_empty();
    assert!(has_status, "{what}: {:?}", answer.headers);
    if answer.status == 503 {
        assert!(!answer.header("retry-after").is_empty(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_entry_is_not_found_only_where_that_is_certain() {
    let (server, _folder) = start().await;
    for state in [State::CaughtUp, State::Degraded, State::Tolerated, State::Failed] {
        check(&server, state).await;
    }
    let (server, _folder) = start_loading().await;
    check(&server, State::Loading).await;
}

/// Checks all kinds of reads of a table.
async fn check(server: &Server, state: State) {
    let (table, parameter) = state.table();
    let at = |path: &str| format!("/v1/tables/{table}/{path}{parameter}");
    let members = ["present", "absent", "expired", "rejected"];
    let keys = members.map(key_of);
    for key in members {
        let is_there = key == "present" && state != State::Loading;
        let expected = if is_there { (200, "") } else { state.absent() };
        let what = format!("{state:?}, {key}");
        let answer = server.get(&at(&format!("entry?key={}", key_of(key)))).await;
        assert_answer(&answer, expected, &what);
        let is_certain = expected.0 == 404;
        assert_eq!(is_certain && key == "rejected", !answer.header("ktables-notice").is_empty(), "{what}");
        if is_certain {
            assert_eq!(answer.json().get("expired").is_some(), key == "expired", "{what}");
        }
        // A long poll waits for what is certain, and otherwise answers at once.
        let etag = answer.header("etag").to_owned();
        let poll = server.request(Method::GET, &at(&format!("entry?key={}&wait=20ms", key_of(key))));
        let poll = server.send(poll.header("if-none-match", if etag.is_empty() { "\"x\"" } else { &etag }));
        let expected = if expected.0 == 503 { expected } else { (304, "") };
        assert_answer(&poll.await, expected, &format!("long poll: {what}"));
    }
    let listed = if state.has_contents() { (200, "") } else { state.absent() };
    for path in ["entries?limit=10", "snapshot?format=object", "groups?limit=10"] {
        assert_answer(&server.get(&at(path)).await, listed, &format!("{state:?}, {path}"));
    }
    let batch = server.request(Method::POST, &at("entries:batch?fresh=false"));
    let batch = server.send(batch.body(json!({ "keys": keys }).to_string())).await;
    assert_answer(&batch, listed, &format!("{state:?}, batch"));
    if listed.0 == 200 {
        let batch = batch.json();
        assert_eq!(batch["entries"].as_array().unwrap().len(), 1, "{batch}");
        assert_eq!(batch["absent"], json!(keys[1..]));
    }
    for (group, is_there) in [("g", state != State::Loading), ("none", false)] {
        let expected = if is_there && state.has_contents() { (200, "") } else { state.absent() };
        let answer = server.get(&at(&format!("groups?group={group}"))).await;
        assert_answer(&answer, expected, &format!("{state:?}, group {group}"));
    }
}
