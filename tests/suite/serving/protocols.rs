//! Every endpoint over HTTP/1.1 and HTTP/2, with and without TLS, on a directory and on Kafka.

use std::collections::BTreeSet;

use ktables_tests::server::{Server, contract, write_config};
use ktables_tests::{TIMEOUT, WatchClient, component_path, eventually, kafka, ktables, unique};
use rcgen::ExtendedKeyUsagePurpose;
use reqwest::{Certificate, Client, ClientBuilder, Method, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::authority::Authority;

const TABLE: &str = "/v1/tables/t";

/// A server, the protocol with which it is called, and the operations that were called.
struct ProtocolTest {
    server: Server,
    version: Version,
    operations: BTreeSet<(String, String)>,
    _folder: TempDir,
}

impl ProtocolTest {
    /// Starts a server with a table with groups, and waits until it is ready.
    async fn start(log: &str, is_tls: bool, version: Version) -> Self {
        let folder = TempDir::new().unwrap();
        let topic = unique("protocols");
        let mut text = format!(
            "[logs.local]\nurl = \"{log}\"\n[tables.t]\nlog = \"local\"\ntopic = \"{topic}\"\nensure_topic = true\n\
             group_scheme = \"length-prefixed\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n"
        );
        let mut client = match version {
            Version::HTTP_2 => Client::builder().http2_prior_knowledge(),
            _ => Client::builder().http1_only(),
        };
        if is_tls {
            client = add_certificate(&folder, client);
            text.push_str("tls = { certificate = \"cert.pem\", key = \"key.pem\" }\n");
        }
        let config = write_config(folder.path(), &text);
        let mut command = ktables(&["serve", "--config", config.to_str().unwrap()]);
        // A cache of its own, so that components are compiled, which takes a while.
        command.env("KTABLES_CACHE_DIR", folder.path().join("cache"));
        let server = Server::start_command(command);
        let server = match is_tls {
            true => server.with_url(|url| url.replace("http://127.0.0.1", "https://localhost")),
            false => server,
        };
        let client = client.build().unwrap();
        let server = server.with(client.clone(), None);
        server.wait_until_ready().await;
        let token = std::fs::read_to_string(folder.path().join(".ktables-admin-token")).unwrap();
        let server = server.with(client, Some(token.trim()));
        Self { server, version, operations: BTreeSet::new(), _folder: folder }
    }

    fn note(&mut self, method: &Method, path: &str) {
        let path = path.split('?').next().unwrap();
        let template = contract().template(path).unwrap_or_else(|| panic!("{path} is not in the document"));
        self.operations.insert((method.to_string(), template.to_owned()));
    }

    /// Calls an operation, which must succeed.
    async fn call(&mut self, method: Method, path: &str, body: &str) -> String {
        self.note(&method, path);
        let request = self.server.request(method.clone(), path).body(body.to_owned());
        let answer = self.server.send(request).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text);
        assert_eq!(answer.version, self.version, "{method} {path}");
        answer.text
    }

    async fn get(&mut self, path: &str) -> String {
        self.call(Method::GET, path, "").await
    }

    /// Opens a watch, and returns it once it has delivered the entries.
    async fn watch(&mut self, path: &str, is_sse: bool) -> WatchClient {
        self.note(&Method::GET, path);
        let mut watch = WatchClient::open(&self.server, path, is_sse).await;
        watch.until("synced").await;
        watch
    }

    async fn swap(&mut self, parameters: &str) {
        let path = format!("{TABLE}/swap");
        self.call(Method::POST, &format!("{path}?{parameters}"), r#"{"value": "utf8"}"#).await;
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let report: Value = serde_json::from_str(&self.get(&path).await).unwrap();
            match report["state"].as_str().unwrap() {
                "done" | "tried" => return,
                "failed" | "refused" => panic!("{report}"),
                _ => assert!(tokio::time::Instant::now() < deadline, "{report}"),
            }
        }
    }
}

/// Writes a certificate for `localhost`, and lets a client trust it.
fn add_certificate(folder: &TempDir, client: ClientBuilder) -> ClientBuilder {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    std::fs::write(folder.path().join("cert.pem"), certificate).unwrap();
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    client.tls_certs_only([Certificate::from_pem(authority.pem().as_bytes()).unwrap()])
}

// Long because it calls every operation of the contract.
async fn every_operation_works(log: &str, is_tls: bool, version: Version) {
    let mut test = ProtocolTest::start(log, is_tls, version).await;
    for path in ["/livez", "/readyz", "/readyz/t", "/openapi.json", "/v1/tables", TABLE] {
        test.get(path).await;
    }
    let at = |rest: &str| format!("{TABLE}/{rest}");
    let mut lines = test.watch(&at("watch"), false).await;
    let mut events = test.watch("/v1/watch?tables=t", true).await;
    let (entry, other) = (at("entry?key=1%3Aga"), at("entries/1:gb"));
    test.call(Method::PUT, &at("entry?group=g&member=a&visible"), "1").await;
    test.call(Method::PUT, &format!("{other}?visible"), "2").await;
    assert_eq!((test.get(&entry).await, test.get(&other).await), ("1".to_owned(), "2".to_owned()));
    for watch in [&mut lines, &mut events] {
        let put = watch.next_of_type("put").await;
        assert_eq!((&put["key"], &put["value"]), (&json!("1:ga"), &json!(1)));
    }
    drop((lines, events));
    let many = "{\"key\": \"1:gc\", \"value\": 3}\n{\"key\": \"1:gd\", \"value\": \"x\"}\n";
    test.call(Method::POST, &at("entries:write?visible"), many).await;
    let page: Value = serde_json::from_str(&test.get(&at("entries")).await).unwrap();
    assert_eq!(page["entries"].as_array().unwrap().len(), 4);
    let keys = json!({ "keys": ["1:ga", "none"] }).to_string();
    let batch = test.call(Method::POST, &at("entries:batch"), &keys).await;
    assert!(batch.contains("\"none\""), "{batch}");
    assert_eq!(test.get(&at("snapshot")).await.lines().count(), 6);
    for path in ["groups", "groups/g", "groups/g/a", "rejects"] {
        test.get(&at(path)).await;
    }
    assert!(test.get(&at("entry/record?key=1%3Aga")).await.contains("MTpnYQ"), "the raw key in base64");
    test.get(&at("entry/history?key=1%3Aga")).await;
    let audited = || test.server.log().iter().filter(|line| line.contains("read the raw record")).count();
    eventually("both reads are logged", || (audited() == 2).then_some(()));
    test.call(Method::POST, &at("rejects:decode"), r#"{"value": "utf8"}"#).await;
    test.call(Method::POST, &at("barrier"), "").await;
    let watch = test.server.request(Method::POST, "/v1/watch").body(r#"{"tables": [{"table": "t"}]}"#);
    let mut response = watch.send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, version));
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    test.note(&Method::POST, "/v1/watch");
    test.swap("dry_run").await;
    test.swap("yes").await;
    assert_eq!(test.get(&entry).await, "\"1\"");
    test.call(Method::POST, &at("swap/back"), "").await;
    // The component is compiled meanwhile.
    let component = std::fs::read(component_path("service-record-go")).unwrap();
    let begin = test.server.request(Method::POST, &at("swap?codec=value")).body(component);
    let begun = test.server.send(begin.header("content-type", "application/wasm")).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    test.call(Method::DELETE, &at("swap"), "").await;
    test.call(Method::DELETE, &entry, "").await;
    test.call(Method::DELETE, &format!("{other}?visible"), "").await;
    test.call(Method::POST, "/v1/reload", "").await;
    assert!(test.get("/metrics").await.contains("ktables_table_entries{table=\"t\"} 2"));
    let all = contract().operations().into_iter().map(|(method, path)| (method.to_string(), path));
    assert_eq!(test.operations, all.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_works_over_http_1() {
    every_operation_works("dir:./data", false, Version::HTTP_11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_works_over_http_2() {
    every_operation_works("dir:./data", false, Version::HTTP_2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_works_over_tls() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        every_operation_works("dir:./data", true, version).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_works_on_kafka() {
    let log = format!("kafka://{}", kafka::shared());
    every_operation_works(&log, false, Version::HTTP_11).await;
    every_operation_works(&log, true, Version::HTTP_2).await;
}
