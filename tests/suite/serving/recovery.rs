//! A server that was killed: what it serves afterwards, and how watches continue, on it and on another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ktables_tests::server::{Server, write_config};
use ktables_tests::{TIMEOUT, WatchClient, apply_event, kafka, unique};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Writes the configuration of one of two servers, with a checkpoint of its own.
fn configure(folder: &Path, name: &str, log: &str, topic: &str) -> PathBuf {
    let own = folder.join(name);
    std::fs::create_dir(&own).unwrap();
    let text = format!(
        "[logs.local]\nurl = \"{log}\"\n[tables.t]\nlog = \"local\"\ntopic = \"{topic}\"\nensure_topic = true\n\
         checkpoint = \"checkpoint\"\n"
    );
    write_config(&own, &text)
}

async fn start(config: &Path) -> Server {
    let server = Server::start(config);
    server.wait_until_ready().await;
    let token = std::fs::read_to_string(config.with_file_name(".ktables-admin-token")).unwrap();
    server.with(Client::new(), Some(token.trim()))
}

/// Writes entries, which are acknowledged when this returns.
async fn write(server: &Server, entries: impl Iterator<Item = (usize, usize)>) {
    let lines: String =
        entries.map(|(key, value)| format!("{{\"key\": \"k{key}\", \"value\": {value}}}\n")).collect();
    let request = server.request(Method::POST, "/v1/tables/t/entries:write?visible&timeout=30s").body(lines);
    let answer = server.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

async fn contents(server: &Server) -> BTreeMap<String, Value> {
    let answer = server.get("/v1/tables/t/snapshot?format=object&fresh=true&timeout=30s").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_value(answer.json()).unwrap()
}

/// A client of a watch.
struct Follower {
    entries: BTreeMap<String, Value>,
    id: String,
}

impl Follower {
    /// Receives all entries.
    async fn new(server: &Server) -> Self {
        let mut watch = WatchClient::open(server, "/v1/tables/t/watch", false).await;
        let mut entries = BTreeMap::new();
        for event in watch.until("synced").await {
            apply_event(&mut entries, &event);
        }
        Self { entries, id: watch.last_id.clone().unwrap() }
    }

    /// Continues on a server, and receives the changes only, until it has its contents.
    async fn resume(&self, server: &Server) {
        let mut watch =
            WatchClient::open(server, &format!("/v1/tables/t/watch?since={}", self.id), false).await;
        let (mut entries, expected) = (self.entries.clone(), contents(server).await);
        let mut is_synced = false;
        while !is_synced || entries != expected {
            let event = watch.next().await.expect("the watch goes on");
            assert!(!matches!(event["type"].as_str(), Some("restarted" | "entry")), "{event}");
            is_synced |= event["type"] == "synced";
            apply_event(&mut entries, &event);
        }
    }
}

// Long because it is one scenario.
async fn a_killed_server_continues_from_its_checkpoint(log: &str) {
    let (folder, topic) = (TempDir::new().unwrap(), unique("recovery"));
    let configs = ["a", "b"].map(|name| configure(folder.path(), name, log, &topic));
    let mut first = start(&configs[0]).await;
    write(&first, (0..1_000).map(|n| (n, n))).await;
    // A stop completes the checkpoint.
    first.signal("TERM");
    assert_eq!(first.wait(), Some(0), "{:?}", first.log());
    let first = start(&configs[0]).await;
    let other = start(&configs[1]).await;
    let follower = Follower::new(&first).await;
    write(&first, (0..300).map(|n| (n, n + 1))).await;
    let before = contents(&first).await;
    // SIGKILL.
    drop(first);
    write(&other, (300..400).map(|n| (n, n + 1))).await;
    let delete = other.request(Method::DELETE, "/v1/tables/t/entry?key=k999&visible");
    assert_eq!(other.send(delete).await.status, 200);
    let first = start(&configs[0]).await;
    let after = contents(&first).await;
    assert_eq!((after.len(), &after["k299"], &after["k300"]), (before.len() - 1, &json!(300), &json!(301)));
    assert_eq!(after, contents(&other).await);
    let described = first.get("/v1/tables/t").await.json();
    assert_eq!(
        described["checkpoint"]["loaded"].as_u64().map(|loaded| loaded >= 1_000),
        Some(true),
        "{described}"
    );
    follower.resume(&first).await;
    follower.resume(&other).await;
    // A swap loads the checkpoint, too.
    let begun = first.request(Method::POST, "/v1/tables/t/swap?dry_run").body(r#"{"value": "utf8"}"#);
    assert_eq!(first.send(begun).await.status, 202);
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    let tried = loop {
        let report = first.get("/v1/tables/t/swap").await.json();
        match report["state"].as_str().unwrap() {
            "loading" | "comparing" => assert!(tokio::time::Instant::now() < deadline, "{report}"),
            _ => break report,
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(tried["state"], "tried", "{tried}");
    assert_eq!(tried["difference"]["changed"], after.len(), "{tried}");
    assert!(tried["from_checkpoint"].as_u64().unwrap() >= 1_000, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_continues_from_its_checkpoint_on_a_directory() {
    let folder = TempDir::new().unwrap();
    a_killed_server_continues_from_its_checkpoint(&format!("dir:{}", folder.path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_continues_from_its_checkpoint_on_kafka() {
    a_killed_server_continues_from_its_checkpoint(&format!("kafka://{}", kafka::shared())).await;
}
