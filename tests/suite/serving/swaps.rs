//! Swaps of codecs while a table is served.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use ktables_tests::server::{Answer, Server};
use ktables_tests::{TIMEOUT, WatchClient, apply_event, component_path, ktables, run, succeed};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A table of texts: read as JSON they are numbers or rejected, read as text they are strings.
const TEXTS: &str = "[tables.texts]\nlog = \"local\"\ntopic = \"texts\"\nensure_topic = true\n\
                     value_codec = \"utf8\"\n[server]\nlisten = [\"127.0.0.1:0\"]\nswap_back = \"60s\"\n";

const SWAP: &str = "/v1/tables/texts/swap";

/// Starts a server, as its administrator.
async fn start() -> (Server, TempDir) {
    let (server, folder) = Server::with_tables(TEXTS).await;
    let token = std::fs::read_to_string(folder.path().join(".ktables-admin-token")).unwrap();
    (server.with(Client::new(), Some(token.trim())), folder)
}

async fn write(server: &Server, entries: impl Iterator<Item = (String, String)>) {
    let lines: String =
        entries.map(|(key, value)| format!("{}\n", json!({ "key": key, "value": value }))).collect();
    let path = "/v1/tables/texts/entries:write?visible";
    let answer = server.send(server.request(Method::POST, path).body(lines)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Begins a swap, and waits for its report.
async fn swap(server: &Server, parameters: &str, codec: &str) -> Value {
    let path = format!("{SWAP}?{parameters}");
    let begun =
        server.send(server.request(Method::POST, &path).body(json!({ "value": codec }).to_string())).await;
    assert_eq!((begun.status, begun.header("location")), (202, SWAP), "{}", begun.text);
    report(server).await
}

async fn report(server: &Server) -> Value {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let report = server.get(SWAP).await.json();
        if !matches!(report["state"].as_str(), Some("loading" | "comparing" | "committing")) {
            return report;
        }
        assert!(tokio::time::Instant::now() < deadline, "{report}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn entry(server: &Server, key: &str) -> Answer {
    server.get(&format!("/v1/tables/texts/entry?key={key}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_decides_and_a_trial_changes_nothing() {
    let (server, _folder) = start().await;
    assert_eq!(server.get(SWAP).await.problem(), "no-swap");
    let entries = [("a", "1"), ("b", "2"), ("bad", "x")];
    write(&server, entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))).await;
    let before = entry(&server, "a").await;
    assert_eq!(before.text, "\"1\"");
    let tried = swap(&server, "dry_run&max_new_rejects=1", "json").await;
    assert_eq!(tried["state"], "tried", "{tried}");
    let difference = &tried["difference"];
    assert_eq!((&difference["changed"], &difference["newly_rejected"]), (&json!(2), &json!(1)), "{tried}");
    assert_eq!((&tried["rejected"]["before"], &tried["rejected"]["after"]), (&json!(0), &json!(1)));
    assert!(difference["samples"].to_string().contains("bad"), "{tried}");
    for (parameters, reason) in
        [("", "max_new_rejects is 0"), ("max_new_rejects=1&max_changed=1", "max_changed is 1")]
    {
        let refused = swap(&server, parameters, "json").await;
        assert_eq!(refused["state"], "refused", "{refused}");
        assert!(refused["reason"].as_str().unwrap().contains(reason), "{refused}");
    }
    let same = entry(&server, "a").await;
    assert_eq!((&*same.text, same.header("etag")), ("\"1\"", before.header("etag")));
    let done = swap(&server, "max_new_rejects=1&max_changed=2", "json").await;
    assert_eq!((&done["state"], &done["can_go_back"]), (&json!("done"), &json!(true)), "{done}");
    let after = entry(&server, "a").await;
    assert_eq!(after.text, "1");
    assert_ne!(after.header("etag"), before.header("etag"));
    assert_eq!(after.header("ktables-fingerprint"), done["fingerprint_after"]);
    assert_eq!(server.get("/v1/tables/texts").await.json()["differs_from_configuration"], true);
    let trial = server.request(Method::POST, &format!("{SWAP}?dry_run")).body("{\"value\": \"json\"}");
    assert_eq!(server.send(trial).await.problem(), "way-back-kept");
    let key = server.request(Method::POST, &format!("{SWAP}?dry_run&codec=none")).body("x");
    assert_eq!(server.send(key.header("content-type", "application/wasm")).await.status, 409);
    // Writers use the new codec at once.
    server.set("texts", "c", "[3]").await;
    let back = server.send(server.request(Method::POST, &format!("{SWAP}/back"))).await;
    assert_eq!(back.json()["fingerprint"], done["fingerprint_before"], "{}", back.text);
    assert_eq!(entry(&server, "c").await.text, "\"[3]\"", "it has followed the topic");
    assert_eq!(entry(&server, "a").await.header("etag"), before.header("etag"));
    assert_eq!(server.get("/v1/tables/texts").await.json()["differs_from_configuration"], false);
    let forth = server.send(server.request(Method::POST, &format!("{SWAP}/back"))).await;
    assert_eq!(forth.status, 200);
    assert_eq!(entry(&server, "c").await.text, "[3]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_cannot_be_used_changes_nothing() {
    let (server, folder) = start().await;
    write(&server, [("a".to_owned(), "1".to_owned())].into_iter()).await;
    let send = |bytes: Vec<u8>| {
        let path = format!("{SWAP}?yes&codec=value");
        server.request(Method::POST, &path).header("content-type", "application/wasm").body(bytes)
    };
    for bytes in [b"nonsense".to_vec(), std::fs::read(component_path("deb822-by-section")).unwrap()] {
        assert_eq!(server.send(send(bytes)).await.status, 202);
        let failed = report(&server).await;
        assert_eq!(failed["state"], "failed", "{failed}");
        assert!(!failed["reason"].as_str().unwrap().is_empty());
        assert_eq!(entry(&server, "a").await.text, "\"1\"");
    }
    // It decodes nothing of this, so the gate refuses it.
    let bytes = std::fs::read(component_path("service-record")).unwrap();
    let path = format!("{SWAP}?codec=value");
    let request = server.request(Method::POST, &path).header("content-type", "application/wasm").body(bytes);
    assert_eq!(server.send(request).await.status, 202);
    assert_eq!(report(&server).await["state"], "refused");
    let named = |name: &str| {
        let path = format!("{SWAP}?codec=value&yes&name={name}");
        let bytes = std::fs::read(component_path("service-record")).unwrap();
        server.request(Method::POST, &path).header("content-type", "application/wasm").body(bytes)
    };
    for name in ["", "a/b", "a%20b", &"n".repeat(65)] {
        assert_eq!(server.send(named(name)).await.status, 400, "{name}");
    }
    assert_eq!(server.send(named("record-2")).await.status, 202);
    assert_eq!(report(&server).await["state"], "done");
    let described = server.get("/v1/tables/texts").await.json();
    assert_eq!(described["codecs"]["value"]["name"], "record-2");
    let back = server.send(server.request(Method::POST, &format!("{SWAP}/back"))).await;
    assert_eq!(back.status, 200, "{}", back.text);
    for body in ["{}", "{\"value\": 1}", "{\"path\": \"/etc/passwd\"}", "x"] {
        assert_eq!(server.send(server.request(Method::POST, SWAP).body(body)).await.status, 400, "{body}");
    }
    let named = server.request(Method::POST, SWAP).body("{\"value\": \"../x.wasm\"}");
    assert_eq!(server.send(named).await.status, 202);
    let failed = report(&server).await;
    assert!(failed["reason"].as_str().unwrap().contains("there is no codec"), "{failed}");
    let url = server.url.clone();
    let token_file = folder.path().join(".ktables-admin-token");
    let command = |args: &[&str]| {
        let mut command =
            ktables(&["swap", "texts", "--server", &url, "--token-file", token_file.to_str().unwrap()]);
        command.args(args);
        command
    };
    let refused = run(&mut command(&["--value-codec", "json", "--max-changed", "0"]));
    assert_eq!((refused.code, &refused.json()[0]["state"]), (1, &json!("refused")), "{}", refused.stderr);
    let done = succeed(&mut command(&["--value-codec", "json"]));
    assert_eq!(done.json()[0]["state"], "done");
    assert_eq!(entry(&server, "a").await.text, "1");
    succeed(&mut command(&["--back"]));
    assert_eq!(entry(&server, "a").await.text, "\"1\"");
    let unknown = run(&mut ktables(&["swap", "none", "--back", "--server", &url]));
    assert_ne!(unknown.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_reports_how_many_dead_letters_are_rejected() {
    let text =
        TEXTS.replace("utf8\"", "json\"\ndead_letter = \"texts-rejected\"\ncheckpoint = \"checkpoint\"");
    let (server, folder) = Server::with_tables(&text).await;
    let token = std::fs::read_to_string(folder.path().join(".ktables-admin-token")).unwrap();
    let server = server.with(Client::new(), Some(token.trim()));
    let log = format!("dir:{}", folder.path().join("data").display());
    for value in ["text", "{", "1"] {
        let args = ["produce", "--log", &log, "--topic", "texts", "--key", "a", "--value", value];
        succeed(&mut ktables(&args));
    }
    let written = || async {
        let described = server.get("/v1/tables/texts").await.json();
        described["dead_letters"]["written"] == 2
    };
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !written().await {
        assert!(tokio::time::Instant::now() < deadline, "the dead letters are written");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let tried = swap(&server, "dry_run", "utf8").await;
    let expected = json!({ "decoded": 2, "rejected_before": 2, "rejected_after": 0, "is_complete": true });
    assert_eq!(tried["dead_letters"], expected, "{tried}");
    assert_eq!(tried["rejected"], json!({ "before": 2, "after": 0 }), "{tried}");
    assert_eq!(tried["records"], json!({ "before": 3, "after": 3 }), "{tried}");
}

// Long because readers, a writer and a watcher run beside the swap.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_under_load_fails_no_request_and_watchers_get_the_difference() {
    let (server, _folder) = start().await;
    let keys = if ktables_tests::is_long_run() { 200_000 } else { 20_000 };
    for from in (0..keys).step_by(10_000) {
        write(&server, (from..from + 10_000).map(|n| (format!("k{n}"), n.to_string()))).await;
    }
    let tried = swap(&server, "dry_run", "json").await;
    let fingerprints = ["fingerprint_before", "fingerprint_after"].map(|name| tried[name].as_str().unwrap());
    let is_over = AtomicBool::new(false);
    let mut watch = WatchClient::open(&server, "/v1/tables/texts/watch", false).await;
    let mut entries = BTreeMap::new();
    for event in watch.until("synced").await {
        apply_event(&mut entries, &event);
    }
    let reader = async |offset: usize| {
        let mut reads = 0;
        while !is_over.load(Ordering::Acquire) {
            let key = format!("k{}", (reads * 7919 + offset) % 10_000);
            let answer = entry(&server, &key).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            let is_text = answer.text.starts_with('"');
            assert_eq!(answer.header("ktables-fingerprint"), fingerprints[usize::from(!is_text)]);
            reads += 1;
        }
        reads
    };
    let writer = async {
        let mut written = 0;
        while !is_over.load(Ordering::Acquire) {
            let path = format!("/v1/tables/texts/entry?key=new{}", written % 100);
            // It is a number for one codec, and must be a string for the other.
            let value = ["1", "\"1\""][written % 2];
            let answer = server.send(server.request(Method::PUT, &path).body(value)).await;
            assert!(matches!(answer.status, 200 | 422), "{}", answer.text);
            written += 1;
        }
    };
    let swapping = async {
        let done = swap(&server, "max_new_rejects=100", "json").await;
        assert_eq!(done["state"], "done", "{done}");
        let back = server.send(server.request(Method::POST, &format!("{SWAP}/back"))).await;
        assert_eq!(back.status, 200, "{}", back.text);
        let forth = server.send(server.request(Method::POST, &format!("{SWAP}/back"))).await;
        assert_eq!(forth.status, 200, "{}", forth.text);
        is_over.store(true, Ordering::Release);
    };
    let (first, second, (), ()) = tokio::join!(reader(0), reader(1), writer, swapping);
    assert!(first > 0 && second > 0, "{first} {second}");
    // The watcher has what the table has once it has seen the last write.
    server.set("texts", "last", "7").await;
    while entries.get("last") != Some(&json!(7)) {
        let event = watch.next().await.unwrap();
        apply_event(&mut entries, &event);
    }
    let object = server.get("/v1/tables/texts/snapshot?format=object").await.json();
    let expected: BTreeMap<String, Value> = object.as_object().unwrap().clone().into_iter().collect();
    assert_eq!(entries.len(), expected.len());
    assert!(entries == expected, "the watcher has the contents");
}

#[test]
fn diff_compares_codecs_without_a_server() {
    let folder = TempDir::new().unwrap();
    let log = format!("dir:{}", folder.path().display());
    succeed(&mut ktables(&["topic", "ensure", "--log", &log, "--topic", "t"]));
    for (key, value) in [("a", "1"), ("b", "text")] {
        succeed(&mut ktables(&["produce", "--log", &log, "--topic", "t", "--key", key, "--value", value]));
    }
    let diff = |args: &[&str]| {
        let mut command = ktables(&["diff", "--log", &log, "--topic", "t"]);
        run(command.args(args))
    };
    let same = diff(&["--value-codec", "utf8", "--against-value-codec", "utf8"]);
    assert_eq!((same.code, &same.json()[0]["equal"]), (0, &json!(2)), "{}", same.stderr);
    let other = diff(&["--value-codec", "utf8", "--against-value-codec", "json"]);
    let report = other.json().remove(0);
    assert_eq!((other.code, &report["changed"], &report["newly_rejected"]), (1, &json!(1), &json!(1)));
    let accepted = diff(&["--value-codec", "json", "--against-value-codec", "utf8"]).json().remove(0);
    assert_eq!(accepted["newly_accepted"], 1, "{accepted}");
    assert_eq!(diff(&[]).code, 2);
}
