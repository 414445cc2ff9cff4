//! Clients that use more than they should: the server stays within its memory, and others are not affected.

use std::collections::BTreeMap;
use std::time::Duration;

use ktables_tests::server::Server;
use ktables_tests::{TIMEOUT, WatchClient, apply_event, is_long_run};
use reqwest::{Client, Method};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SERVICES;

/// Returns the resident memory of a process, in bytes.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_connections_cost_little() {
    // As many as this machine allows for this process and the server, which has the same limit.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let connections = limit.current.unwrap_or(u64::MAX).saturating_sub(1_000).min(10_000);
    assert!(connections >= 1_000, "raise the limit of open files (ulimit -n)");
    let config = format!(
        "{SERVICES}[server]\nlisten = [\"127.0.0.1:0\"]\nmax_connections = 11000\nmax_connections_per_address = 11000\n\
         header_timeout = \"60s\"\n"
    );
    let (server, _folder) = Server::with_tables(&config).await;
    server.set("services", "a", "1").await;
    let before = memory(&server);
    let mut idle = Vec::new();
    for _ in 0..connections {
        idle.push(connect(&server).await);
    }
    // Connections are accepted in order, so all of them were accepted before the one of this request.
    let fresh =
        Client::new().get(format!("{}/v1/tables/services/entry?key=a", server.url)).send().await.unwrap();
    assert_eq!(fresh.status(), 200);
    let each = (memory(&server).saturating_sub(before)) / connections;
    assert!(each < 40_000, "{each} bytes for each of {connections} connections");
    drop(idle);
    assert_eq!(server.get("/v1/tables/services/entry?key=a").await.text, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_its_streams_affects_nobody_else() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    server.set("services", "a", "1").await;
    let before = memory(&server);
    let url = format!("{}/v1/tables/services/entry?key=a", server.url);
    let attack = tokio::spawn(async move {
        let mut answered = 0;
        for _ in 0..20 {
            // A new connection: the server closes one that does this.
            let client = Client::builder().http2_prior_knowledge().build().unwrap();
            for _ in 0..1_000 {
                // Long enough to send the request, and not to receive its answer: dropping it resets its stream.
                tokio::select! {
                    biased;
                    answer = client.get(&url).send() => answered += usize::from(answer.is_ok()),
                    () = yield_often() => {}
                }
            }
        }
        answered
    });
    while !attack.is_finished() {
        let answer = server.get("/v1/tables/services/entry?key=a").await;
        assert_eq!((answer.status, &*answer.text), (200, "1"));
    }
    let answered = attack.await.unwrap();
    assert!(answered < 10_000, "most requests were reset: {answered} of 20,000 were answered");
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_of_http_2_ends_and_a_watch_on_one_goes_on() {
    let config = format!(
        "{SERVICES}[server]\nlisten = [\"127.0.0.1:0\"]\nheader_timeout = \"300ms\"\nstalled_timeout = \"4s\"\n\
         bookmark_interval = \"1s\"\n"
    );
    let (server, _folder) = Server::with_tables(&config).await;
    let http2 = Client::builder().http2_prior_knowledge().build().unwrap();
    let server = server.with(http2, None);
    let mut watch = WatchClient::open(&server, "/v1/tables/services/watch", false).await;
    let (mut idle, began) = (connect(&server).await, std::time::Instant::now());
    // The preface and empty settings.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    idle.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).await.unwrap();
    let mut head = [0; 9];
    loop {
        tokio::time::timeout(TIMEOUT, idle.read_exact(&mut head)).await.expect("a frame in time").unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        idle.read_exact(&mut vec![0; length]).await.unwrap();
        // GOAWAY.
        if head[3] == 7 {
            break;
        }
    }
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    // It does not confirm that, so it is closed.
    let mut rest = Vec::new();
    tokio::time::timeout(TIMEOUT, idle.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    for _ in 0..3 {
        watch.next_of_type("bookmark").await;
    }
    server.set("services", "a", "1").await;
    assert_eq!(watch.next_of_type("put").await["value"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pauses_gets_its_whole_answer() {
    let config = format!("{SERVICES}[server]\nlisten = [\"127.0.0.1:0\"]\nheader_timeout = \"200ms\"\n");
    let (server, _folder) = Server::with_tables(&config).await;
    let value = json!("v".repeat(100_000)).to_string();
    for key in 0..100 {
        server.set("services", &key.to_string(), &value).await;
    }
    for client in [Client::builder().http2_prior_knowledge(), Client::builder().http1_only()] {
        let request = client.build().unwrap().get(format!("{}/v1/tables/services/snapshot", server.url));
        let mut response = request.send().await.unwrap();
        let mut bytes = response.chunk().await.unwrap().unwrap().len();
        // Several times as long as a connection may be idle.
        tokio::time::sleep(Duration::from_secs(1)).await;
        while let Some(chunk) = response.chunk().await.unwrap() {
            bytes += chunk.len();
        }
        assert!(bytes > 100 * value.len(), "{bytes}");
    }
}

/// Lets the tasks of a connection run a few times.
async fn yield_often() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

/// A watch that is read slowly: a thousand bytes per second.
async fn read_slowly(server: &Server, until: tokio::time::Instant) -> (TcpStream, Vec<u8>) {
    let mut stream = connect(server).await;
    let head =
        "GET /v1/tables/services/watch HTTP/1.0\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    while tokio::time::Instant::now() < until {
        let mut bytes = [0; 100];
        let read = stream.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "it is not disconnected, because it reads");
        received.extend_from_slice(&bytes[..read]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (stream, received)
}

/// Applies the events of a watch until this key was seen.
fn apply_lines(text: &str) -> BTreeMap<String, Value> {
    let mut entries = BTreeMap::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:.200}"));
        apply_event(&mut entries, &event);
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_costs_bounded_memory_and_ends_with_the_contents() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    let time = Duration::from_secs(if is_long_run() { 60 } else { 5 });
    let mut quick = WatchClient::open(&server, "/v1/tables/services/watch?mode=every", false).await;
    quick.until("synced").await;
    let reading = tokio::spawn(async move {
        let (mut offsets, mut missed) = (Vec::new(), 0);
        loop {
            let event = quick.next().await.expect("the watch goes on");
            match event["type"].as_str() {
                Some("missed") => missed += event["missed"].as_u64().unwrap(),
                Some("put") if event["key"] == "last" => return (offsets, missed),
                Some("put") => offsets.push(event["offset"].as_i64().unwrap()),
                _ => {}
            }
        }
    });
    let until = tokio::time::Instant::now() + time;
    let (value, mut written, mut before) = ("v".repeat(200), 0, None);
    let write = async {
        // Also on a slow machine, enough that the buffers of the system are full.
        while tokio::time::Instant::now() < until || written < 5_000 {
            // A hundred times in a second.
            let lines: String = (0..100)
                .map(|n| {
                    format!("{}\n", json!({ "key": format!("k{}", (written + n) % 2_000), "value": value }))
                })
                .collect();
            let request = server.request(Method::POST, "/v1/tables/services/entries:write").body(lines);
            assert_eq!(server.send(request).await.status, 200);
            written += 100;
            if written >= 4_000 {
                before.get_or_insert_with(|| memory(&server));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.set("services", "last", "1").await;
    };
    let ((mut stream, mut received), ()) = tokio::join!(read_slowly(&server, until), write);
    let grown = memory(&server).saturating_sub(before.expect("enough was written"));
    assert!(grown < 100 << 20, "{grown} bytes after {written} writes");
    let (offsets, missed) = tokio::time::timeout(TIMEOUT, reading).await.unwrap().unwrap();
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "nothing twice");
    assert!(missed > 0 || offsets.len() == written, "{} of {written}, {missed} missed", offsets.len());
    // The slow reader reads on quickly, and has the same contents.
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !received.windows(6).any(|part| part == b"\"last\"") || received.last() != Some(&b'\n') {
        let mut bytes = vec![0; 64 << 10];
        let read = tokio::time::timeout_at(deadline, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "it is not disconnected");
        received.extend_from_slice(&bytes[..read]);
    }
    let text = String::from_utf8(received).unwrap();
    let entries = apply_lines(text.split_once("\r\n\r\n").unwrap().1);
    let snapshot = server.get("/v1/tables/services/snapshot?format=object").await.json();
    assert_eq!(serde_json::to_value(entries).unwrap(), snapshot);
}
