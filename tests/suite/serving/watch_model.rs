//! A client that watches, whatever happens to its connection, its servers, the codecs and the topic.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ktables_tests::server::{Server, write_config};
use ktables_tests::{TIMEOUT, WatchClient, apply_event, is_long_run, ktables, succeed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::SERVICES;

/// Two servers of one topic.
struct Cluster {
    configs: [PathBuf; 2],
    servers: [Option<Server>; 2],
    log: String,
    _folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let log = format!("dir:{}", folder.path().join("data").display());
        let configs = ["a", "b"].map(|name| {
            let own = folder.path().join(name);
            std::fs::create_dir(&own).unwrap();
            write_config(&own, &format!("[logs.local]\nurl = \"{log}\"\n{SERVICES}"))
        });
        let mut cluster = Self { configs, servers: [None, None], log, _folder: folder };
        for index in 0..2 {
            cluster.restart(index).await;
        }
        cluster
    }

    /// Kills a server, and starts it again.
    async fn restart(&mut self, index: usize) {
        drop(self.servers[index].take());
        let server = Server::start(&self.configs[index]);
        server.wait_until_ready().await;
        let token = self.configs[index].with_file_name(".ktables-admin-token");
        let token = std::fs::read_to_string(token).unwrap();
        self.servers[index] = Some(server.with(Client::new(), Some(token.trim())));
    }

    fn server(&self, index: usize) -> &Server {
        self.servers[index].as_ref().unwrap()
    }

    /// Writes entries through one of the servers, and waits until both have them.
    async fn write(&self, random: &mut StdRng) {
        let count = random.random_range(1..40);
        let lines: String = (0..count)
            .map(|_| {
                let key = format!("k{}", random.random_range(0..12));
                let line = match random.random_bool(0.2) {
                    true => json!({ "key": key, "delete": true }),
                    // Both codecs accept a text in quotation marks.
                    false => json!({ "key": key, "value": random.random_range(0..100).to_string() }),
                };
                format!("{line}\n")
            })
            .collect();
        let server = self.server(random.random_range(0..2));
        let path = "/v1/tables/services/entries:write?timeout=30s";
        let written = server.send(server.request(Method::POST, path).body(lines)).await;
        assert_eq!(written.status, 200, "{}", written.text);
        for index in 0..2 {
            contents(self.server(index)).await;
        }
    }

    /// Swaps the codecs of a server to another one than it has.
    async fn swap(&self, index: usize) {
        let server = self.server(index);
        let value = contents(server).await.into_values().next();
        let codec = if value.is_some_and(|value| value.as_str().is_some_and(|text| text.starts_with('"'))) {
            "json"
        } else {
            "utf8"
        };
        let path = "/v1/tables/services/swap";
        let begin =
            server.request(Method::POST, &format!("{path}?yes")).body(json!({ "value": codec }).to_string());
        let begun = server.send(begin).await;
        assert_eq!(begun.status, 202, "{}", begun.text);
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let report = server.get(path).await.json();
            match report["state"].as_str() {
                // A server that was started again has the codec of its configuration already.
                Some("done" | "failed") => return,
                _ => assert!(tokio::time::Instant::now() < deadline, "{report}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Deletes the topic, creates it again, and waits until both servers have noticed.
    async fn recreate_topic(&self) {
        let args = ["--log", &self.log, "--topic", "services"];
        let before = self.server(0).get("/v1/tables/services").await.json()["topic_id"].clone();
        succeed(ktables(&["topic", "delete", "--yes"]).args(args));
        succeed(ktables(&["topic", "ensure"]).args(args));
        for index in 0..2 {
            let deadline = tokio::time::Instant::now() + TIMEOUT;
            loop {
                let described = self.server(index).get("/v1/tables/services").await.json();
                if described["topic_id"] != before && described["status"] == "caught_up" {
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "{described}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// What a server answers, once it has everything that was acknowledged.
async fn contents(server: &Server) -> BTreeMap<String, Value> {
    let answer = server.get("/v1/tables/services/snapshot?format=object&fresh=true&timeout=30s").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_value(answer.json()).unwrap()
}

/// A client: what it has, and where it continues.
struct Model {
    mode: &'static str,
    entries: BTreeMap<String, Value>,
    since: Option<String>,
    /// The newest offset of each key, since everything was sent anew.
    offsets: BTreeMap<String, i64>,
}

impl Model {
    /// Watches a server until it has the contents of the server.
    async fn catch_up(&mut self, server: &Server) {
        let since = self.since.as_ref().map(|id| format!("&since={id}")).unwrap_or_default();
        let path = format!("/v1/tables/services/watch?mode={}{since}", self.mode);
        let mut watch = WatchClient::open(server, &path, self.mode == "latest").await;
        let expected = contents(server).await;
        let mut is_synced = false;
        while !is_synced || self.entries != expected {
            let event = watch.next().await.expect("the watch goes on");
            self.apply(&event);
            is_synced |= event["type"] == "synced";
        }
        self.since = watch.last_id.clone();
    }

    fn apply(&mut self, event: &Value) {
        apply_event(&mut self.entries, event);
        match event["type"].as_str().unwrap() {
            // Offsets of another topic, or of the same records decoded by others.
            "restarted" | "generation" => self.offsets.clear(),
            "entry" | "put" | "delete" => {
                let (key, offset) =
                    (event["key"].as_str().unwrap().to_owned(), event["offset"].as_i64().unwrap());
                let before = self.offsets.insert(key, offset);
                assert!(before.is_none_or(|before| before <= offset), "{}: {event}", self.mode);
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_the_contents_whatever_happens() {
    let mut random = StdRng::seed_from_u64(11);
    let mut cluster = Cluster::start().await;
    let model = |mode| Model { mode, entries: BTreeMap::new(), since: None, offsets: BTreeMap::new() };
    let mut models = [model("latest"), model("every")];
    for _ in 0..if is_long_run() { 400 } else { 40 } {
        let index = random.random_range(0..2);
        match random.random_range(0..12) {
            0 | 1 => cluster.restart(index).await,
            2 => cluster.swap(index).await,
            3 => cluster.recreate_topic().await,
            _ => cluster.write(&mut random).await,
        }
        for model in &mut models {
            model.catch_up(cluster.server(random.random_range(0..2))).await;
        }
    }
}
