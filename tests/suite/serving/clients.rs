//! The example clients keep following a table while its server is restarted.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use ktables_tests::server::{Server, write_config};
use ktables_tests::{eventually, root};
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::SERVICES;

/// Starts an example client of the table `services`, which ends once it has the key `last`.
fn start(program: &str, args: &[&str], url: &str) -> Child {
    let tools = root().join("target/tools/guests/bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command
        .args(args)
        .args([url, "services", "last"])
        .current_dir(root().join("examples/clients"))
        .env("PATH", path);
    command
        .env("GOTOOLCHAIN", "local")
        .env("GOCACHE", root().join("target/go/cache"))
        .env("NODE_NO_WARNINGS", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Waits until a client ends, and returns the entries that it has.
fn finish(mut client: Child) -> Value {
    eventually("the client has the last key", || client.try_wait().unwrap());
    let output = client.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_clients_follow_a_table_through_restarts() {
    let folder = TempDir::new().unwrap();
    // The server that is started again has the same address.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!("[server]\nlisten = [\"127.0.0.1:{port}\"]\nshutdown_timeout = \"4s\"\n");
    let config = write_config(folder.path(), &format!("{SERVICES}{server}"));
    let mut server = Server::start(&config);
    server.wait_until_ready().await;
    let clients = [
        start("python3", &["watch.py"], &server.url),
        start("go", &["run", "watch.go"], &server.url),
        start("node", &["--experimental-strip-types", "watch.ts"], &server.url),
    ];
    let mut written = 0;
    for round in 0..4 {
        for _ in 0..25 {
            let mut lines = Vec::new();
            for n in 0..100 {
                let key = (written * 7 + n * 13) % 500;
                match (written + n) % 3 {
                    0 => writeln!(lines, "{{\"key\": \"k{key}\", \"delete\": true}}").unwrap(),
                    _ => writeln!(lines, "{{\"key\": \"k{key}\", \"value\": {written}}}").unwrap(),
                }
                written += 1;
            }
            let path = "/v1/tables/services/entries:write";
            assert_eq!(server.send(server.request(Method::POST, path).body(lines)).await.status, 200);
        }
        if round < 3 {
            server.signal(if round == 0 { "KILL" } else { "TERM" });
            server.wait();
            server = Server::start(&config);
            server.wait_until_ready().await;
        }
    }
    server.set("services", "last", "1").await;
    let expected = server.get("/v1/tables/services/snapshot?format=object").await.json();
    for (client, name) in clients.into_iter().zip(["Python", "Go", "TypeScript"]) {
        assert!(finish(client) == expected, "{name}");
    }
}
