//! Servers whose codecs cannot be loaded: one table has failed, and the others are served.

use std::time::{Duration, Instant};

use ktables_tests::server::Server;
use ktables_tests::{OciRegistry, Reply, TIMEOUT};
use reqwest::Method;
use serde_json::{Value, json};

use crate::codec_registries::policies::VALUE;
use crate::codec_registries::{Workspace, reference, text};

/// A table that needs no codec of a registry.
const PLAIN: &str = "[tables.plain]\nlog = \"local\"\ntopic = \"plain\"\nensure_topic = true\n";

/// Three times the pause after which codecs are loaded again.
const RETRIED: Duration = Duration::from_secs(45);

const SERVER: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\n";

/// Waits until a table has a status, and returns what the server says about it.
async fn wait_for_status(server: &Server, table: &str, status: &str, limit: Duration) -> Value {
    let until = Instant::now() + limit;
    loop {
        let answer = server.get(&format!("/v1/tables/{table}")).await;
        if answer.status == 200 && answer.json()["status"] == status {
            return answer.json();
        }
        assert!(Instant::now() < until, "{} {:?}", answer.text, server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the log has a text.
async fn wait_for_log(server: &Server, text: &str) {
    let until = Instant::now() + TIMEOUT;
    while !server.log().iter().any(|line| line.contains(text)) {
        assert!(Instant::now() < until, "{text}: {:?}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_table_whose_registry_is_down_fails_alone_and_is_opened_later() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    registry.script(|_| Some(Reply::status(503)));
    let config = workspace.configure(&text(&pushed, "reference"), "");
    // Of a table that uses everything that a table can use.
    let config = format!(
        "{config}group_scheme = \"length-prefixed\"\ncheckpoint = \"checkpoint\"\ndead_letter = \"rejects\"\n"
    );
    workspace.write("ktables.toml", &format!("{config}{PLAIN}{SERVER}"));
    let server = Server::start_command(workspace.ktables(&["serve", "--config", "ktables.toml"]));
    wait_for_status(&server, "plain", "caught_up", TIMEOUT).await;
    let failed = wait_for_status(&server, "services", "failed", TIMEOUT).await;
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.starts_with("topic `services`: a codec cannot be loaded: codecs.service: "), "{reason}");
    assert!(reason.contains(&registry.host()) && reason.contains("503"), "{reason}");
    // The other one is as usual.
    server.set("plain", "a", "1").await;
    // Nobody learns that the table is empty, or has no groups.
    for (method, path) in [
        (Method::GET, "entry?key=a"),
        (Method::GET, "entries"),
        (Method::GET, "groups"),
        (Method::GET, "entry?group=a&member=b"),
        (Method::PUT, "entry?key=a"),
        (Method::POST, "swap"),
    ] {
        let request = server.request(method, &format!("/v1/tables/services/{path}")).body("{}");
        let token = std::fs::read_to_string(workspace.path(".ktables-admin-token")).unwrap();
        let answer = server.send(request.bearer_auth(token.trim())).await;
        assert!(answer.status == 503 && answer.problem() == "failed", "{path}: {}", answer.text);
        assert!(answer.text.contains("a codec cannot be loaded"), "{path}: {}", answer.text);
    }
    let watch = server.request(Method::GET, "/v1/tables/services/watch").send().await.unwrap();
    let events = watch.text().await.unwrap();
    assert!(events.contains(r#""status":"failed""#) && !events.contains("synced"), "{events}");
    let ready = server.get("/readyz").await;
    assert!(ready.status == 503 && ready.text.contains("services"), "{}", ready.text);
    // A reload changes the other tables, and keeps this one.
    workspace.write("ktables.toml", &format!("{config}{}{SERVER}", PLAIN.replace("plain", "added")));
    server.signal("HUP");
    wait_for_status(&server, "added", "caught_up", TIMEOUT).await;
    wait_for_log(&server, r#""kept":["services"]"#).await;
    // The status says why it cannot be loaded now.
    registry.script(|_| Some(Reply::status(403)));
    let until = Instant::now() + RETRIED;
    while !server.get("/v1/tables/services").await.text.contains("it denied access (403)") {
        assert!(Instant::now() < until, "{:?}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    registry.end_script();
    server.signal("HUP");
    wait_for_status(&server, "services", "caught_up", TIMEOUT).await;
    server.wait_until_ready().await;
    server.set("services", "1:ab", VALUE).await;
}

#[tokio::test]
async fn a_registry_that_is_silent_delays_only_its_table() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    std::fs::remove_dir_all(workspace.path("cache/oci")).ok();
    registry.script(|_| {
        Some(Reply::Stream(Box::new(|stream| {
            // Until the client goes away.
            let _ = stream.read_to_end(&mut Vec::new());
        })))
    });
    let config = workspace.configure(&text(&pushed, "reference"), "");
    workspace.write("ktables.toml", &format!("{config}{PLAIN}{SERVER}"));
    let mut server = Server::start_command(workspace.ktables(&["serve", "--config", "ktables.toml"]));
    wait_for_status(&server, "plain", "caught_up", TIMEOUT).await;
    server.set("plain", "a", "1").await;
    let read = server.get("/v1/tables/services/entry?key=a").await;
    assert_eq!((read.status, read.problem()), (503, "loading".to_owned()), "{:?}", server.log());
    let ready = server.get("/readyz").await;
    assert!(ready.status == 503 && ready.text.contains("services"), "{}", ready.text);
    // A watch of all tables would lack one.
    assert_eq!(server.get("/v1/watch").await.problem(), "loading");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[tokio::test]
async fn a_reload_keeps_a_table_whose_file_is_gone() {
    let workspace = Workspace::new();
    let config = workspace.configure("service.wasm", "");
    workspace.write("ktables.toml", &format!("{config}{SERVER}"));
    let server = Server::start_command(workspace.ktables(&["serve", "--config", "ktables.toml"]));
    wait_for_status(&server, "services", "caught_up", TIMEOUT).await;
    std::fs::remove_file(workspace.path("service.wasm")).unwrap();
    workspace.write("ktables.toml", &format!("{config}{PLAIN}{SERVER}"));
    server.signal("HUP");
    wait_for_status(&server, "plain", "caught_up", TIMEOUT).await;
    wait_for_log(&server, r#""kept":["services"]"#).await;
    assert_eq!(server.get("/v1/tables/services").await.json()["status"], "caught_up");
    // Another file is another codec.
    workspace.write("service.wasm", "nonsense");
    server.signal("HUP");
    wait_for_log(&server, "the configuration was not reloaded").await;
}

#[tokio::test]
async fn a_reload_keeps_a_table_whose_codec_is_no_longer_approved() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    let config = workspace.configure(&text(&pushed, "reference"), "");
    workspace.write("ktables.toml", &format!("{config}{SERVER}"));
    workspace.write("policy.toml", "version = 1\ndefault = \"allow\"\n");
    let mut command = workspace.ktables(&["serve", "--config", "ktables.toml"]);
    command.env("KTABLES_POLICY", workspace.path("policy.toml"));
    let server = Server::start_command(command);
    wait_for_status(&server, "services", "caught_up", TIMEOUT).await;

    workspace.write("policy.toml", "version = 1\ndefault = \"refuse\"\n");
    workspace.write("ktables.toml", &format!("{config}{PLAIN}{SERVER}"));
    server.signal("HUP");
    wait_for_status(&server, "plain", "caught_up", TIMEOUT).await;
    wait_for_log(&server, "the table stays as it is, because a codec cannot be loaded").await;
    wait_for_log(&server, r#""kept":["services"]"#).await;
    assert_eq!(server.get("/v1/tables/services").await.json()["status"], "caught_up");

    // Another codec that is not approved is an error, and changes nothing.
    let other = workspace.push_other(&registry, "2.0.0");
    let other = workspace.configure(&text(&other, "reference"), "");
    workspace.write("ktables.toml", &format!("{other}{SERVER}"));
    server.signal("HUP");
    wait_for_log(&server, "the configuration was not reloaded").await;
    assert_eq!(server.get("/v1/tables/plain").await.json()["status"], "caught_up");
    let codecs = server.get("/v1/tables/services").await.json()["codecs"].clone();
    assert_eq!(codecs["value"]["manifest"], pushed["manifest"]);
}

#[test]
fn a_server_of_which_no_table_can_be_opened_ends() {
    let workspace = Workspace::new();
    let config = workspace.configure("missing.wasm", "");
    workspace.write("ktables.toml", &format!("{config}{SERVER}"));
    let error = workspace.fail(&["serve", "--config", "ktables.toml"], 3);
    assert!(error.contains("codecs.service: ") && error.contains("missing.wasm"), "{error}");
}

#[test]
fn other_commands_end_if_the_codec_of_their_table_cannot_be_loaded() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let config = workspace.configure(&reference(&registry, "1.0.0"), "");
    workspace.write("ktables.toml", &format!("{config}{PLAIN}"));
    assert!(workspace.fail(&["status", "-t", "services"], 3).contains("codecs.service: "));
    assert_eq!(workspace.succeed(&["status", "-t", "plain"])["status"], json!("caught_up"));
}
