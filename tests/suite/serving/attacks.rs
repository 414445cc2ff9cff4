//! Slow, large and malformed requests.

use ktables_tests::server::Server;
use ktables_tests::{TIMEOUT, WatchClient, is_long_run};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SERVICES;

const LIMITS: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\nheader_timeout = \"300ms\"\nrequest_timeout = \"500ms\"\n\
                      stalled_timeout = \"500ms\"\nmax_body = \"64KiB\"\nmax_connections = 200\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Reads until the server closes the connection.
async fn read_to_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // OK to ignore: a reset is an end, too.
    let _ = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("closed in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_large_requests_are_cut_off_and_others_are_not_affected() {
    let (server, _folder) = Server::with_tables(&format!("{SERVICES}{LIMITS}")).await;
    server.set("services", "a", "1").await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect(&server).await);
    }
    let mut slow_head = connect(&server).await;
    // OK to ignore: it may be refused, because too many are open.
    let _ = slow_head.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-").await;
    for stream in silent.into_iter().chain([slow_head]) {
        read_to_end(stream).await;
    }
    assert_eq!(server.get("/v1/tables/services/entry?key=a").await.status, 200);
    let head =
        "PUT /v1/tables/services/entry?key=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n1";
    let mut slow_body = connect(&server).await;
    slow_body.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_end(slow_body).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut large = connect(&server).await;
    // OK to ignore: the server closes the connection.
    let header = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = large.write_all(header.as_bytes()).await;
    let answer = read_to_end(large).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:.100}");
    let body = server.request(Method::PUT, "/v1/tables/services/entry?key=a").body(vec![b'1'; 100 << 20]);
    if let Ok(answer) = body.send().await {
        assert_eq!(answer.status(), 413);
    }
    assert_eq!(server.get("/v1/tables/services/entry?key=a").await.text, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_reads_nothing_is_disconnected_and_others_get_everything() {
    let (server, _folder) = Server::with_tables(&format!("{SERVICES}{LIMITS}")).await;
    let mut stalled = connect(&server).await;
    let head = "GET /v1/tables/services/watch HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stalled.write_all(head.as_bytes()).await.unwrap();
    let mut watch = WatchClient::open(&server, "/v1/tables/services/watch", false).await;
    watch.until("synced").await;
    let reading = tokio::spawn(async move { while watch.next_of_type("put").await["key"] != "last" {} });
    let value = format!("\"{}\"", "v".repeat(30_000));
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    // The buffers of the system take a few megabytes.
    for n in 0.. {
        server.set("services", &format!("k{}", n % 10), &value).await;
        let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        if metrics.contains("ktables_table_watchers{table=\"services\"} 1.0") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{metrics}");
    }
    server.set("services", "last", "1").await;
    tokio::time::timeout(TIMEOUT, reading).await.unwrap().unwrap();
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_get_an_answer_of_the_contract() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    let parts = [
        "%",
        "%ff",
        "%00",
        "..",
        "//",
        "?",
        "?key",
        "?key=%",
        "?limit=-1",
        "?at_least=:",
        "?wait=1e99s",
        "{}",
        "*",
    ];
    for part in parts {
        for prefix in
            ["/", "/v1/", "/v1/tables/", "/v1/tables/services/", "/v1/tables/services/entry", "/readyz/"]
        {
            let mut stream = connect(&server).await;
            for method in ["GET", "PUT", "DELETE", "POST", "PATCH", "X"] {
                let head = format!(
                    "{method} {prefix}{part} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"
                );
                if stream.write_all(head.as_bytes()).await.is_err() {
                    break;
                }
                let mut answer = vec![0; 8 << 10];
                let read =
                    tokio::time::timeout(TIMEOUT, stream.read(&mut answer)).await.unwrap().unwrap_or(0);
                let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
                let is_answered =
                    answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 2");
                let is_refused = answer.starts_with("HTTP/1.1 501");
                assert!(is_answered || is_refused, "{method} {prefix}{part}: {answer}");
                if answer.is_empty() || answer.contains("connection: close") {
                    stream = connect(&server).await;
                }
            }
        }
    }
    assert_eq!(server.get("/livez").await.status, 200);
    let log = server.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
}

/// Parts of requests that are valid, or nearly.
const PARTS: [&str; 34] = [
    "/",
    "v1",
    "tables",
    "services",
    "entry",
    "entries",
    "entries:batch",
    "entries:write",
    "groups",
    "watch",
    "swap",
    "back",
    "rejects",
    "snapshot",
    "barrier",
    "record",
    "history",
    "?",
    "&",
    "=",
    "key",
    "group",
    "member",
    "limit",
    "cursor",
    "since",
    "at_least",
    "timeout",
    "1s",
    "0:1",
    "true",
    "%",
    "%2F",
    "..",
];

/// Returns random bytes, of which most are parts of requests.
fn random_text(random: &mut StdRng, parts: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..random.random_range(0..parts) {
        match random.random_range(0..8) {
            0 => text.push(random.random_range(0x21..0x7f)),
            1 => text.extend_from_slice(format!("%{:02x}", random.random_range(0..256)).as_bytes()),
            2 => text.extend_from_slice(random.random::<i64>().to_string().as_bytes()),
            _ => text.extend_from_slice(PARTS[random.random_range(0..PARTS.len())].as_bytes()),
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_never_fail_the_server() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    server.set("services", "a", "1").await;
    let mut random = StdRng::seed_from_u64(5);
    let mut stream = connect(&server).await;
    for _ in 0..if is_long_run() { 50_000 } else { 3_000 } {
        let method = ["GET", "GET", "PUT", "POST", "DELETE", "HEAD"][random.random_range(0..6)];
        let mut request = format!("{method} /").into_bytes();
        let prefix = ["", "v1/", "v1/tables/services/", "v1/tables/services/entry?", "v1/watch?"];
        request.extend_from_slice(prefix[random.random_range(0..5)].as_bytes());
        request.extend(random_text(&mut random, 12).into_iter().filter(|byte| !b" #".contains(byte)));
        request.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\n");
        let headers =
            ["Authorization: Bearer ", "If-None-Match: ", "Last-Event-ID: ", "Accept: ", "Content-Type: "];
        for header in headers {
            if random.random_bool(0.8) {
                continue;
            }
            request.extend_from_slice(header.as_bytes());
            let value =
                if random.random_bool(0.1) { random.random::<[u8; 9]>().to_vec() } else { Vec::new() };
            // A line break would end the header.
            request.extend(value.into_iter().filter(|byte| !byte.is_ascii_control()));
            request.extend_from_slice(b"x\r\n");
        }
        let body: Vec<u8> = match random.random_range(0..3) {
            0 => b"{\"keys\": [\"a\"], \"value\": null}"[random.random_range(0..20)..].to_vec(),
            1 => (0..random.random_range(0..50)).map(|_| random.random()).collect(),
            _ => Vec::new(),
        };
        // The next request needs a connection of its own if this one begins a stream.
        request.extend_from_slice(
            format!("Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        );
        request.extend(body);
        // OK to ignore: the server may have closed the connection before it has read everything.
        let _ = stream.write_all(&request).await;
        let mut answer = vec![0; 64];
        let read = tokio::time::timeout(TIMEOUT, stream.read(&mut answer)).await.expect("an answer in time");
        let answer = String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned();
        let status = answer.get(9..12).unwrap_or_default();
        let is_expected = matches!(status.as_bytes(), [b'2' | b'3' | b'4', ..] | b"501") || answer.is_empty();
        assert!(is_expected, "{answer}: {}", String::from_utf8_lossy(&request));
        stream = connect(&server).await;
    }
    assert_eq!(server.get("/livez").await.status, 200);
    let log = server.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
}
