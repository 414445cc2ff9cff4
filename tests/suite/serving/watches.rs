//! Watches: their events, resuming on any replica, and several tables on one connection.

use std::collections::BTreeMap;
use std::time::Duration;

use ktables_tests::server::{Server, write_config};
use ktables_tests::{WatchClient, apply_event};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::SERVICES;

const OTHER: &str = "[tables.other]\nlog = \"local\"\ntopic = \"other\"\nensure_topic = true\n";

const WATCH: &str = "/v1/tables/services/watch";

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_has_the_entries_and_then_the_changes() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    for is_sse in [false, true] {
        let mut empty = WatchClient::open(&server, &format!("{WATCH}?prefix=none"), is_sse).await;
        let types: Vec<Value> =
            empty.until("synced").await.into_iter().map(|event| event["type"].clone()).collect();
        assert_eq!(types, ["status", "synced"], "also for an empty table");
        server.set("services", "a", "1").await;
        let mut watch = WatchClient::open(&server, WATCH, is_sse).await;
        let events = watch.until("synced").await;
        assert_eq!(
            (&events[0]["status"], &events[1]["key"], events.len()),
            (&json!("caught_up"), &json!("a"), 3)
        );
        server.set("services", "a", "2").await;
        let put = watch.next().await.unwrap();
        assert_eq!((&put["type"], &put["value"], &put["old"]), (&json!("put"), &json!(2), &json!(1)));
        let id = watch.last_id.clone();
        assert!(id.is_some());
        let delete = server.request(Method::DELETE, "/v1/tables/services/entry?key=a");
        server.send(delete).await;
        let deleted = watch.next().await.unwrap();
        assert_eq!(
            (&deleted["type"], &deleted["old"], deleted.get("value")),
            (&json!("delete"), &json!(2), None)
        );
        let mut without =
            WatchClient::open(&server, &format!("{WATCH}?snapshot=false&old=false"), is_sse).await;
        assert_eq!(without.until("synced").await.len(), 2, "no entries");
        server.set("services", "a", "null").await;
        let put = without.next().await.unwrap();
        assert_eq!((put.get("value"), put.get("old")), (Some(&Value::Null), None));
        server.send(server.request(Method::DELETE, "/v1/tables/services/entry?key=a&visible")).await;
    }
    let mut unknown = WatchClient::open(&server, &format!("{WATCH}?since=of-another-version"), false).await;
    let types: Vec<Value> =
        unknown.until("synced").await.into_iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["status", "restarted", "synced"], "the client need not know what to do");
    for parameters in ["mode=all", "key=a&prefix=b", "old=maybe"] {
        assert_eq!(server.get(&format!("{WATCH}?{parameters}")).await.status, 400, "{parameters}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sends_bookmarks_and_says_goodbye() {
    let text = format!(
        "{SERVICES}[server]\nlisten = [\"127.0.0.1:0\"]\nbookmark_interval = \"50ms\"\nwatch_duration = \"2s\"\n"
    );
    let (server, _folder) = Server::with_tables(&text).await;
    let mut watch = WatchClient::open(&server, WATCH, false).await;
    let bookmark = watch.next_of_type("bookmark").await;
    assert!(bookmark["id"].is_string() && bookmark["interval_seconds"] == 1, "{bookmark}");
    let goodbye = watch.next_of_type("goodbye").await;
    assert!(goodbye["id"].is_string(), "{goodbye}");
    assert_eq!(watch.next().await, Some(json!({ "type": "end" })));
    assert_eq!(watch.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_watches_several_tables() {
    let (server, _folder) = Server::with_tables(&format!("{SERVICES}{OTHER}")).await;
    server.set("services", "a", "1").await;
    let mut watch = WatchClient::open(&server, "/v1/watch", true).await;
    let mut synced = Vec::new();
    while synced.len() < 2 {
        synced.push(watch.next_of_type("synced").await["table"].clone());
    }
    synced.sort_by_key(ToString::to_string);
    assert_eq!(synced, ["other", "services"]);
    server.set("other", "b", "2").await;
    let put = watch.next_of_type("put").await;
    assert_eq!((&put["table"], &put["key"]), (&json!("other"), &json!("b")));
    let only = WatchClient::open(&server, "/v1/watch?tables=other", false).await.until("synced").await;
    assert!(only.iter().all(|event| event["table"] == "other"), "{only:?}");
    let body =
        json!({ "tables": [{ "table": "services", "key": "a" }, { "table": "other", "since": put["id"] }] });
    let answer = server.request(Method::POST, "/v1/watch").body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for body in ["{}", "{\"tables\": []}", "{\"tables\": [{\"table\": \"other\"}, {\"table\": \"other\"}]}"] {
        let answer = server.send(server.request(Method::POST, "/v1/watch").body(body)).await;
        assert_eq!(answer.status, 400, "{body}");
    }
    let unknown = server.get("/v1/watch?tables=other,none").await;
    assert_eq!(unknown.problem(), "unknown-table");
    let flat = server.get("/v1/tables/services/watch?group=g").await;
    assert_eq!((flat.status, &*flat.problem()), (400, "no-groups"));
}

/// A client that loses its connection again and again, and reaches another server each time.
// Long because it is one scenario.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_continues_on_any_server_without_a_gap() {
    let folder = TempDir::new().unwrap();
    let config = write_config(folder.path(), SERVICES);
    let mut servers = [Server::start(&config), Server::start(&config)];
    for server in &servers {
        server.wait_until_ready().await;
    }
    let mut random = StdRng::seed_from_u64(7);
    let mut clients = [("latest", BTreeMap::new(), None::<String>), ("every", BTreeMap::new(), None)];
    let mut offsets_of_every: Vec<i64> = Vec::new();
    for round in 0..12 {
        for _ in 0..random.random_range(1..30) {
            let key = format!("k{}", random.random_range(0..10));
            let path = format!("/v1/tables/services/entry?key={key}");
            let request = if random.random_bool(0.3) {
                servers[0].request(Method::DELETE, &path)
            } else {
                servers[0].request(Method::PUT, &path).body(random.random_range(0..1000).to_string())
            };
            assert_eq!(servers[0].send(request).await.status, 200);
        }
        if round % 4 == 3 {
            servers[1].signal("KILL");
            servers[1] = Server::start(&config);
            servers[1].wait_until_ready().await;
        }
        let server = &servers[round % 2];
        let end = server.get("/v1/tables/services/entries?fresh=true&limit=1").await;
        let end: i64 = end.header("ktables-positions").split_once(':').unwrap().1.parse().unwrap();
        for (mode, entries, since) in &mut clients {
            let since_parameter = since.as_ref().map(|id| format!("&since={id}")).unwrap_or_default();
            let path = format!("{WATCH}?mode={mode}{since_parameter}");
            let mut watch = WatchClient::open(server, &path, round % 3 == 0).await;
            for event in watch.until("synced").await {
                assert!(since.is_none() || event["type"] != "restarted", "{event}");
                apply_event(entries, &event);
                if *mode == "every"
                    && since.is_some()
                    && matches!(event["type"].as_str(), Some("put" | "delete"))
                {
                    offsets_of_every.push(event["offset"].as_i64().unwrap());
                }
            }
            if since.is_none() && *mode == "every" {
                offsets_of_every.push(end - 1);
            }
            *since = watch.last_id.clone();
            let page = server.get("/v1/tables/services/entries?limit=1000").await.json();
            let expected: BTreeMap<String, Value> = page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| (entry["key"].as_str().unwrap().to_owned(), entry["value"].clone()))
                .collect();
            assert_eq!(*entries, expected, "round {round}, {mode}");
        }
    }
    // Deletes of keys that do not exist change nothing.
    assert!(
        offsets_of_every.windows(2).all(|pair| pair[0] < pair[1]),
        "each change once: {offsets_of_every:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_whose_keys_do_not_change_resumes_without_a_restart() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    server.set("services", "mine", "1").await;
    let mut watch = WatchClient::open(&server, &format!("{WATCH}?key=mine"), false).await;
    watch.until("synced").await;
    let id = watch.last_id.clone().unwrap();
    drop(watch);
    for _ in 0..4 {
        let lines: String =
            (0..5_000).map(|n| format!("{{\"key\": \"k{}\", \"value\": {n}}}\n", n % 50)).collect();
        let write = server.request(Method::POST, "/v1/tables/services/entries:write?visible").body(lines);
        assert_eq!(server.send(write).await.status, 200);
    }
    let mut watch = WatchClient::open(&server, &format!("{WATCH}?key=mine&since={id}"), false).await;
    let types: Vec<Value> =
        watch.until("synced").await.into_iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["status", "synced"]);
    server.set("services", "mine", "2").await;
    assert_eq!(watch.next_of_type("put").await["value"], 2);
    assert_eq!(watch.next_within(Duration::from_millis(100)).await, None);
}
