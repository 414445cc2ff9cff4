//! How a server starts, reloads its configuration, stops, and survives without its log.

use std::collections::BTreeSet;
use std::time::Duration;

use ktables_broker::BrokerOptions;
use ktables_tests::server::{Server, write_config};
use ktables_tests::{TIMEOUT, WatchClient, component_path, kafka, ktables, root, run, succeed};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::SERVICES;

/// Waits until a condition holds.
async fn wait_until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !is_true().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_goodbye_to_streams_and_loses_no_write() {
    let folder = TempDir::new().unwrap();
    let text = format!("{SERVICES}[server]\nlisten = [\"127.0.0.1:0\"]\nshutdown_timeout = \"6s\"\n");
    let config = write_config(folder.path(), &text);
    let mut server = Server::start(&config);
    server.wait_until_ready().await;
    let mut watches = Vec::new();
    for n in 0..100 {
        watches.push(WatchClient::open(&server, "/v1/tables/services/watch", n % 2 == 0).await);
    }
    let client = Client::new();
    let url = server.url.clone();
    let writer = tokio::spawn(async move {
        let mut acknowledged = 0;
        loop {
            let url = format!("{url}/v1/tables/services/entry?key=k{acknowledged}");
            match client.put(url).body("1").send().await {
                Ok(answer) if answer.status() == 200 => acknowledged += 1,
                _ => return acknowledged,
            }
        }
    });
    wait_until("something was written", async || {
        server.get("/v1/tables/services").await.json()["entries"].as_u64() > Some(10)
    })
    .await;
    let began = tokio::time::Instant::now();
    server.signal("TERM");
    wait_until("the server is not ready", async || {
        let ready = server.request(Method::GET, "/readyz").send().await;
        ready.is_ok_and(|answer| answer.status() == 503)
    })
    .await;
    assert_eq!(server.wait(), Some(0), "{:?}", server.log());
    assert!(began.elapsed() < 3 * Duration::from_secs(6));
    for watch in &mut watches {
        watch.next_of_type("goodbye").await;
        assert!(watch.last_id.is_some());
    }
    let acknowledged = writer.await.unwrap();
    assert!(acknowledged > 10);
    let again = Server::start(&config);
    again.wait_until_ready().await;
    let entries = again.get("/v1/tables/services").await.json()["entries"].as_u64().unwrap();
    assert!(entries >= acknowledged, "{entries} of {acknowledged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_server_at_once() {
    let folder = TempDir::new().unwrap();
    let text = format!("{SERVICES}[server]\nlisten = [\"127.0.0.1:0\"]\nshutdown_timeout = \"1h\"\n");
    let mut server = Server::start(&write_config(folder.path(), &text));
    server.wait_until_ready().await;
    let _watch = WatchClient::open(&server, "/v1/tables/services/watch", false).await;
    server.signal("INT");
    wait_until("the server stops", async || server.log().iter().any(|line| line.contains("stopping"))).await;
    server.signal("INT");
    assert_eq!(server.wait(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_what_has_changed_and_nothing_if_the_file_is_invalid() {
    let table = |name: &str, more: &str| {
        format!("[tables.{name}]\nlog = \"local\"\ntopic = \"{name}\"\nensure_topic = true\n{more}")
    };
    let folder = TempDir::new().unwrap();
    let config = |text: &str| write_config(folder.path(), text);
    let path = config(&[table("kept", ""), table("gone", ""), table("other", "")].concat());
    let server = Server::start(&path);
    server.wait_until_ready().await;
    server.set("kept", "a", "1").await;
    server.set("other", "a", "1").await;
    let mut kept = WatchClient::open(&server, "/v1/tables/kept/watch", false).await;
    let mut gone = WatchClient::open(&server, "/v1/tables/gone/watch", false).await;
    kept.until("synced").await;
    config(&[table("kept", "nonsense = 1\n"), table("new", "")].concat());
    server.signal("HUP");
    wait_until("the file is refused", async || {
        server.log().iter().any(|line| line.contains("was not reloaded") && line.contains("nonsense"))
    })
    .await;
    assert_eq!(server.get("/v1/tables/gone").await.status, 200, "nothing has changed");
    let reloads = async || {
        let metrics = server.get("/metrics").await.text;
        let line = metrics.lines().find(|line| line.starts_with("ktables_config_last_reload_successful"));
        line.unwrap().to_owned()
    };
    assert_eq!(reloads().await, "ktables_config_last_reload_successful 0.0");
    config(&[table("kept", ""), table("new", ""), table("other", "value_codec = \"utf8\"\n")].concat());
    server.signal("HUP");
    wait_until("the table is there", async || server.get("/v1/tables/new").await.status == 200).await;
    assert_eq!(server.get("/v1/tables/gone").await.problem(), "unknown-table");
    wait_until("the reload has ended", async || reloads().await.ends_with(" 1.0")).await;
    gone.next_of_type("goodbye").await;
    wait_until("the codec is swapped", async || {
        server.get("/v1/tables/other/entry?key=a").await.text == "\"1\""
    })
    .await;
    assert_eq!(server.get("/v1/tables/other").await.json()["differs_from_configuration"], false);
    server.set("kept", "a", "2").await;
    assert_eq!(kept.next_of_type("put").await["value"], 2, "its watch goes on");
    let token = std::fs::read_to_string(folder.path().join(".ktables-admin-token")).unwrap();
    let server = server.with(Client::new(), Some(token.trim()));
    let reloaded = server.send(server.request(Method::POST, "/v1/reload")).await;
    let reloaded = reloaded.json();
    assert_eq!((&reloaded["unchanged"], &reloaded["added"]), (&json!(3), &json!([])), "{reloaded}");
    config("[tables.x]\n");
    let refused = server.send(server.request(Method::POST, "/v1/reload")).await;
    assert_eq!((refused.status, &*refused.problem()), (422, "invalid-configuration"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_opens_a_failed_table_again() {
    let (server, folder) = Server::with_tables(&format!("{SERVICES}on_reject = \"halt\"\n")).await;
    let log = format!("dir:{}", folder.path().join("data").display());
    let topic = ["--log", &*log, "--topic", "services"];
    succeed(ktables(&["produce", "--key", "a", "--value", "not json"]).args(topic));
    let status = async |server: &Server| server.get("/v1/tables/services").await.json()["status"].clone();
    wait_until("the table has failed", async || status(&server).await == "failed").await;
    assert_eq!(server.request(Method::GET, "/readyz").send().await.unwrap().status(), 503);
    succeed(ktables(&["topic", "delete", "--yes"]).args(topic));
    succeed(ktables(&["topic", "ensure"]).args(topic));
    server.signal("HUP");
    wait_until("the table is caught up", async || status(&server).await == "caught_up").await;
    server.set("services", "a", "1").await;
    assert_eq!(server.get("/readyz").await.status, 200);
    succeed(ktables(&["produce", "--key", "a", "--value", "not json"]).args(topic));
    wait_until("the table has failed", async || status(&server).await == "failed").await;
    assert_eq!(server.get("/readyz").await.status, 503, "it is as necessary as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_serves_one_topic_through_three_languages() {
    let folder = TempDir::new().unwrap();
    let components = component_path("service-record").parent().unwrap().to_owned();
    let config = root().join("examples/serve/ktables.toml");
    let mut command = ktables(&["serve", "--config", config.to_str().unwrap()]);
    command.env("KTABLES_COMPONENTS", components).env("KTABLES_DATA", folder.path()).env("KTABLES_PORT", "0");
    let server = Server::start_command(command);
    server.wait_until_ready().await;
    let vectors = std::fs::read_to_string(root().join("examples/service-record/vectors.ndjson")).unwrap();
    let vectors = vectors.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let value =
        vectors.into_iter().find(|vector| vector["kind"] == "value" && vector["error"].is_null()).unwrap();
    let value = &value["value"];
    let path = "/v1/tables/services/entry?key=billing&visible=true";
    let written = server.send(server.request(Method::PUT, path).body(value.to_string())).await;
    assert_eq!(written.status, 200, "{}", written.text);
    let mut digests = BTreeSet::new();
    for table in ["services", "services-c", "services-python"] {
        let answer =
            server.get(&format!("/v1/tables/{table}/entry?key=billing&at_least=0:1&timeout=60s")).await;
        assert_eq!((answer.status, &answer.json()), (200, value), "{table}");
        let described = server.get(&format!("/v1/tables/{table}")).await.json();
        digests.insert(described["codecs"]["value"]["digest"].to_string());
    }
    assert_eq!(digests.len(), 3);
    let metrics = server.get("/metrics").await;
    assert!(metrics.text.contains("ktables_table_entries{table=\"services-c\"} 1"), "{}", metrics.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_brokers_stays_ready_and_answers() {
    let mut broker = kafka::start_broker(&BrokerOptions::default());
    let bootstrap = broker.bootstrap().to_owned();
    let folder = TempDir::new().unwrap();
    let text = format!(
        "[logs.local]\nurl = \"kafka://{bootstrap}\"\nstale_after = \"1s\"\n{SERVICES}checkpoint = \"checkpoint\"\n"
    );
    let server = Server::start(&write_config(folder.path(), &text));
    server.wait_until_ready().await;
    server.set("services", "a", "1").await;
    let mut watch = WatchClient::open(&server, "/v1/tables/services/watch", false).await;
    watch.until("synced").await;
    broker.kill().unwrap();
    wait_until("the table is degraded", async || server.get("/readyz").await.json()["status"] == "degraded")
        .await;
    let answer = server.get("/v1/tables/services/entry?key=a").await;
    assert_eq!((answer.status, &*answer.text, answer.header("ktables-status")), (200, "1", "degraded"));
    let absent = server.get("/v1/tables/services/entry?key=b").await;
    assert_eq!((absent.status, &*absent.problem()), (503, "degraded"));
    assert!(!absent.header("retry-after").is_empty());
    let tolerated = server.get("/v1/tables/services/entry?key=b&max_staleness=1h").await;
    assert_eq!(tolerated.status, 404);
    for path in ["entries", "snapshot"] {
        let answer = server.get(&format!("/v1/tables/services/{path}")).await;
        assert_eq!((answer.status, answer.header("ktables-status")), (200, "degraded"), "{path}");
    }
    assert_eq!(server.get("/readyz/services").await.json()["status"], "degraded");
    assert_eq!(watch.next_of_type("status").await["status"], "degraded");
    let write = server.request(Method::PUT, "/v1/tables/services/entry?key=c&timeout=1s").body("1");
    let write = server.send(write).await;
    assert!(matches!(write.status, 503 | 504), "{}", write.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_leaves_the_token_of_one_that_runs() {
    let (server, folder) = Server::with_tables(SERVICES).await;
    let token = || std::fs::read_to_string(folder.path().join(".ktables-admin-token")).unwrap();
    let before = token();
    let other = folder.path().join("other.toml");
    let text = "[logs.local]\nurl = \"dir:./data\"\n[tables.none]\nlog = \"local\"\ntopic = \"none\"\n\
                [server]\nlisten = [\"127.0.0.1:0\"]\n";
    std::fs::write(&other, text).unwrap();
    let refused = run(&mut ktables(&["serve", "--config", other.to_str().unwrap()]));
    assert!(refused.code != 0 && refused.stderr.contains("none"), "{}", refused.stderr);
    assert_eq!(token(), before);
    let server = server.with(Client::new(), Some(before.trim()));
    assert_eq!(server.send(server.request(Method::POST, "/v1/reload")).await.status, 200);
}
