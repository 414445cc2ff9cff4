//! Reads of entries, pages, groups and snapshots.

use std::time::Duration;

use ktables_tests::server::{Server, write_config};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SERVICES, encode};

const GROUPED: &str = "[tables.grouped]\nlog = \"local\"\ntopic = \"grouped\"\nensure_topic = true\n\
                       group_scheme = \"length-prefixed\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_has_its_value_and_says_where_it_comes_from() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    server.set("services", "billing", "{\"b\": 1, \"a\": 2}").await;
    let answer = server.get("/v1/tables/services/entry?key=billing").await;
    assert_eq!((answer.status, &*answer.text), (200, "{\"b\": 1, \"a\": 2}"), "as stored");
    for (name, value) in [
        ("content-type", "application/json"),
        ("ktables-status", "caught_up"),
        ("ktables-staleness", "0"),
        ("ktables-positions", "0:1"),
        ("ktables-partition", "0"),
        ("ktables-offset", "0"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("last-modified").is_empty() && !answer.header("request-id").is_empty());
    let by_path = server.get("/v1/tables/services/entries/billing").await;
    assert_eq!((&*by_path.text, by_path.header("etag")), (&*answer.text, answer.header("etag")));
    let head = server.send(server.request(Method::HEAD, "/v1/tables/services/entry?key=billing")).await;
    assert_eq!((head.status, head.header("etag"), &*head.text), (200, answer.header("etag"), ""));
    let absent = server.get("/v1/tables/services/entry?key=other").await;
    assert_eq!((absent.status, &*absent.problem()), (404, "not-found"));
    assert!(absent.header("etag").contains("-none-"));
    let named = server.request(Method::GET, "/v1/tables/services").header("request-id", "my-id");
    assert_eq!(server.send(named).await.header("request-id"), "my-id");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_etag_is_the_same_on_another_replica_and_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let config = write_config(folder.path(), SERVICES);
    let first = Server::start(&config);
    first.wait_until_ready().await;
    first.set("services", "a", "1").await;
    let path = "/v1/tables/services/entry?key=a&fresh=true";
    let etag = first.get(path).await.header("etag").to_owned();
    let second = Server::start(&config);
    second.wait_until_ready().await;
    assert_eq!(second.get(path).await.header("etag"), etag);
    drop((first, second));
    let third = Server::start(&config);
    third.wait_until_ready().await;
    assert_eq!(third.get(path).await.header("etag"), etag);
    let known = third.request(Method::GET, path).header("if-none-match", &etag);
    let answer = third.send(known).await;
    assert_eq!((answer.status, &*answer.text, answer.header("etag")), (304, "", &*etag));
    let known = third.request(Method::GET, path).header("if-none-match", "\"x\"");
    assert_eq!(third.send(known).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_answered_when_its_own_answer_changes() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    server.set("services", "a", "1").await;
    for (key, change, expected) in [("a", "2", 200), ("b", "1", 200)] {
        let path = format!("/v1/tables/services/entry?key={key}");
        let etag = server.get(&path).await.header("etag").to_owned();
        let poll = server.request(Method::GET, &format!("{path}&wait=60s")).header("if-none-match", &etag);
        let poll = tokio::spawn(poll.send());
        for _ in 0..10 {
            let lines: String =
                (0..1_000).map(|n| format!("{{\"key\": \"other{}\", \"value\": {n}}}\n", n % 20)).collect();
            let write = server.request(Method::POST, "/v1/tables/services/entries:write?visible").body(lines);
            assert_eq!(server.send(write).await.status, 200);
        }
        assert!(!poll.is_finished(), "unrelated updates do not wake it");
        server.set("services", key, change).await;
        let answer = tokio::time::timeout(ktables_tests::TIMEOUT, poll).await.unwrap().unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (expected, change.to_owned()));
    }
    let etag = server.get("/v1/tables/services/entry?key=a").await.header("etag").to_owned();
    let path = "/v1/tables/services/entry?key=a&wait=50ms";
    let poll = server.request(Method::GET, path).header("if-none-match", &etag);
    assert_eq!(server.send(poll).await.status, 304);
    assert_eq!(server.get(path).await.status, 400, "without an ETag");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_any_text() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    let long = "k".repeat(20_000);
    let keys = ["", ".", "..", "%2e", "/", "a//b", "%2F", "\0", "\u{202e}", "a b+c&d=e", "ä", &long];
    for (n, key) in keys.iter().enumerate() {
        server.set("services", &encode(key), &n.to_string()).await;
    }
    for (n, key) in keys.iter().enumerate() {
        let answer = server.get(&format!("/v1/tables/services/entry?key={}", encode(key))).await;
        assert_eq!((answer.status, answer.text), (200, n.to_string()), "{key:.20}");
    }
    let huge = "k".repeat(64 << 10);
    let batch = json!({ "keys": [huge, "", "absent", ".."] }).to_string();
    let line = json!({ "key": huge, "value": 7 }).to_string();
    let written = server.request(Method::POST, "/v1/tables/services/entries:write?visible").body(line);
    assert_eq!(server.send(written).await.json()["outcome"], "written");
    let answer =
        server.send(server.request(Method::POST, "/v1/tables/services/entries:batch").body(batch)).await;
    let answer = answer.json();
    let values: Vec<&Value> =
        answer["entries"].as_array().unwrap().iter().map(|entry| &entry["value"]).collect();
    assert_eq!(values, [&json!(7), &json!(0), &json!(2)]);
    assert_eq!(answer["absent"], json!(["absent"]));
    for path in ["entries/", "entries/%2e%2e", "entries/a%2Fb", "entries/%5c"] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let request = server.request(method.clone(), &format!("/v1/tables/services/{path}")).body("1");
            let answer = server.send(request).await;
            assert_eq!(answer.status, 400, "{method} {path}");
            assert!(answer.text.contains("?key="), "{}", answer.text);
        }
    }
    assert_eq!(server.get("/v1/tables/services").await.json()["entries"], keys.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_the_table_in_the_order_of_keys() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    let lines: String = (0..250).map(|n| format!("{{\"key\": \"k{n:03}\", \"value\": {n}}}\n")).collect();
    let written = server.request(Method::POST, "/v1/tables/services/entries:write?visible").body(lines);
    let written = server.send(written).await;
    assert_eq!(written.text.lines().count(), 250);
    let list = async |parameters: &str| {
        server.get(&format!("/v1/tables/services/entries?{parameters}")).await.json()
    };
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("limit=60&values=false&cursor={cursor}")).await;
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.iter().all(|entry| entry.get("value").is_none()));
        keys.extend(entries.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()));
        match page["cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(keys, (0..250).map(|n| format!("k{n:03}")).collect::<Vec<_>>());
    for (parameters, expected) in [
        ("prefix=k24", 10),
        ("start=k100&end=k105", 5),
        ("contains=99", 2),
        ("prefix=k1&contains=5&limit=1000", 19),
        ("partition=1", 0),
        ("limit=10000", 250),
    ] {
        let page = list(parameters).await;
        assert_eq!(page["entries"].as_array().unwrap().len(), expected, "{parameters}");
        assert_eq!(page["cursor"], Value::Null, "{parameters}");
    }
    assert_eq!(list("").await["entries"].as_array().unwrap().len(), 100);
    for parameters in ["limit=0", "limit=10001", "limit=x", "nonsense=1", "limit=1&limit=2"] {
        assert_eq!(
            server.get(&format!("/v1/tables/services/entries?{parameters}")).await.status,
            400,
            "{parameters}"
        );
    }
    let lines = server.get("/v1/tables/services/snapshot").await.text;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["type"], &lines[251]["type"]), (252, &json!("start"), &json!("end")));
    assert_eq!((&lines[0]["positions"], &lines[251]["entries"]), (&json!({ "0": 250 }), &json!(250)));
    let object = server.get("/v1/tables/services/snapshot?format=object").await.json();
    assert_eq!((object.as_object().unwrap().len(), &object["k007"]), (250, &json!(7)));
    let compressed =
        server.request(Method::GET, "/v1/tables/services/snapshot").header("accept-encoding", "gzip");
    let compressed = compressed.send().await.unwrap();
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
    assert!(compressed.bytes().await.unwrap().len() < 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_have_members() {
    let (server, _folder) = Server::with_tables(GROUPED).await;
    for (group, member) in [("billing", "a"), ("billing", "b"), ("ä/ö", "c")] {
        let path = format!("/v1/tables/grouped/entry?group={}&member={member}&visible", encode(group));
        assert_eq!(server.send(server.request(Method::PUT, &path).body("1")).await.status, 200);
    }
    let groups = server.get("/v1/tables/grouped/groups").await.json();
    let expected = json!([{ "group": "billing", "members": 2 }, { "group": "ä/ö", "members": 1 }]);
    assert_eq!(groups["groups"], expected);
    let first = server.get("/v1/tables/grouped/groups?limit=1").await.json();
    assert_eq!(first["cursor"], "billing");
    let second = server.get("/v1/tables/grouped/groups?cursor=billing").await.json();
    assert_eq!((&second["groups"][0]["group"], &second["cursor"]), (&json!("ä/ö"), &Value::Null));
    let members = server.get("/v1/tables/grouped/groups/billing?limit=1").await.json();
    assert_eq!((&members["members"][0]["member"], &members["cursor"]), (&json!("a"), &json!("a")));
    assert_eq!(server.get("/v1/tables/grouped/groups/billing/b").await.json()["value"], 1);
    let entry = server.get("/v1/tables/grouped/entry?group=billing&member=b").await;
    assert_eq!((entry.status, &*entry.text), (200, "1"));
    for path in ["groups/none", "groups/billing/none", "entry?group=billing&member=none"] {
        assert_eq!(server.get(&format!("/v1/tables/grouped/{path}")).await.problem(), "not-found", "{path}");
    }
    let (flat, _folder) = Server::with_tables(SERVICES).await;
    assert_eq!(flat.get("/v1/tables/services/groups").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_can_wait_until_a_write_is_visible() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    let written = server.request(Method::PUT, "/v1/tables/services/entry?key=a").body("1");
    let written = server.send(written).await;
    assert_eq!(written.header("ktables-positions"), "0:1");
    let read = server.get("/v1/tables/services/entry?key=a&at_least=0:1").await;
    assert_eq!((read.status, &*read.text), (200, "1"));
    let late = server.get("/v1/tables/services/entry?key=a&at_least=0:100&timeout=50ms").await;
    assert_eq!((late.status, &*late.problem(), late.header("retry-after")), (503, "stale", "1"));
    assert_eq!(server.get("/v1/tables/services/entry?key=a&at_least=7:1").await.status, 400);
    let barrier = server.send(server.request(Method::POST, "/v1/tables/services/barrier")).await;
    assert_eq!(barrier.json(), json!({ "fresh": true }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_entry_is_hidden_unless_it_is_asked_for() {
    let ttl = format!("{SERVICES}ttl = \"1s\"\n");
    let (server, _folder) = Server::with_tables(&ttl).await;
    server.set("services", "a", "1").await;
    let deadline = tokio::time::Instant::now() + ktables_tests::TIMEOUT;
    let expired = loop {
        let answer = server.get("/v1/tables/services/entry?key=a").await;
        if answer.status == 404 {
            break answer;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(expired.json()["expired"], true);
    let shown = server.get("/v1/tables/services/entry?key=a&expired=true").await;
    assert_eq!((shown.status, &*shown.text), (200, "1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_record_leaves_a_notice() {
    let (server, folder) = Server::with_tables(SERVICES).await;
    server.set("services", "a", "1").await;
    let log = format!("dir:{}", folder.path().join("data").display());
    for key in ["a", "b"] {
        let mut produce =
            ktables_tests::ktables(&["produce", "--log", &log, "--topic", "services", "--key", key]);
        let produced = ktables_tests::run_with_stdin(produce.args(["--value", "not json"]), "");
        assert_eq!(produced.code, 0, "{}", produced.stderr);
    }
    let kept = server.get("/v1/tables/services/entry?key=a&fresh").await;
    assert_eq!((kept.status, &*kept.text), (200, "1"));
    assert!(kept.header("ktables-notice").starts_with("partition=0; offset=1; kind="), "{:?}", kept.headers);
    let known = server.request(Method::GET, "/v1/tables/services/entry?key=a");
    let known = server.send(known.header("if-none-match", kept.header("etag"))).await;
    assert_eq!((known.status, known.header("ktables-notice")), (304, kept.header("ktables-notice")));
    let absent = server.get("/v1/tables/services/entry?key=b").await;
    assert_eq!((absent.status, absent.header("ktables-notice").is_empty()), (404, false));
    let rejects = server.get("/v1/tables/services/rejects").await.json();
    let rejects = rejects["rejects"].as_array().unwrap().clone();
    assert_eq!((rejects.len(), &rejects[1]["offset"], rejects[0].get("raw")), (2, &json!(2), None));
    let path = "/v1/tables/services/rejects:decode";
    let decode = |codec: &str| server.request(Method::POST, path).body(json!({ "value": codec }).to_string());
    assert_eq!(server.send(decode("utf8")).await.status, 403, "it shows bytes of records");
    let token = std::fs::read_to_string(folder.path().join(".ktables-admin-token")).unwrap();
    for (codec, accepted) in [("utf8", 2), ("json", 0)] {
        let decoded = server.send(decode(codec).bearer_auth(token.trim())).await.json();
        assert_eq!((&decoded["accepted"], &decoded["rejected"]), (&json!(accepted), &json!(2 - accepted)));
        let expected = if accepted == 2 { json!("not json") } else { Value::Null };
        assert_eq!(decoded["records"][1]["decoded"], expected, "{decoded}");
    }
    assert_eq!(server.send(decode("none").bearer_auth(token.trim())).await.status, 400);
}
