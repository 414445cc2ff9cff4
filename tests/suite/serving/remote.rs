//! Commands that talk to a server give the same answers as without it.

use ktables_tests::server::{Server, write_config};
use ktables_tests::{CommandOutput, RunningCommand, component_path, ktables, run, run_with_stdin, succeed};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::SERVICES;

const GROUPS: &str = "group_scheme = \"length-prefixed\"\n";

/// A server, and the arguments that name its table with and without it.
struct Both {
    server: Server,
    remote: Vec<String>,
    local: Vec<String>,
    _folder: TempDir,
}

impl Both {
    async fn start(config: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = write_config(folder.path(), config);
        let server = Server::start(&path);
        server.wait_until_ready().await;
        let text = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        let remote = text(&["--server", &server.url, "-t", "services"]);
        let local = text(&["--config", path.to_str().unwrap(), "-t", "services"]);
        Self { server, remote, local, _folder: folder }
    }

    fn remote(&self, args: &[&str]) -> CommandOutput {
        run(ktables(args).args(&self.remote))
    }

    /// Runs a command with and without the server. Both must print the same, and end with the same exit code.
    fn assert_same(&self, args: &[&str]) -> CommandOutput {
        let (local, remote) = (run(ktables(args).args(&self.local)), self.remote(args));
        assert_eq!((remote.code, &remote.stdout), (local.code, &local.stdout), "{args:?}: {}", remote.stderr);
        remote
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_the_same_with_and_without_a_server() {
    let both = Both::start(SERVICES).await;
    for (key, value) in [("a", "1.00"), ("b", r#"{"a":[null]}"#), ("a key/ä", "\"x\""), ("gone", "1")] {
        let written = both.remote(&["set", key, value, "--wait"]);
        assert_eq!(written.code, 0, "{}", written.stderr);
        assert_eq!(written.json()[0]["partition"], 0);
    }
    assert_eq!(both.remote(&["delete", "gone", "--wait"]).code, 0);
    let lines: String =
        (0..5_000).map(|n| format!("{}\n", json!({ "key": format!("k{n}"), "value": n }))).collect();
    let import = run_with_stdin(ktables(&["import"]).args(&both.remote), &format!("{lines}\nnot json\n"));
    let counts = json!({ "lines": 5_002, "acknowledged": 5_000, "refused": 1, "expired": 0, "blank": 1,
                         "interrupted": false });
    assert_eq!((import.code, import.json()), (1, vec![counts]), "{}", import.stderr);
    for args in [
        &["get", "a key/ä"][..],
        &["get", "a"],
        &["get", "gone"],
        &["get", "absent"],
        &["keys"],
        &["keys", "--prefix", "k1", "--limit", "17"],
        &["keys", "--start", "k2", "--end", "k3"],
        &["dump"],
        &["rejects"],
    ] {
        both.assert_same(args);
    }
    assert_eq!(both.assert_same(&["keys"]).stdout.lines().count(), 5_003);
    let verbose = &both.remote(&["get", "a", "--verbose"]).json()[0];
    let expected = json!({ "status": "caught_up", "key": "a", "value": 1.0, "partition": 0, "offset": 0 });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&verbose[name], value, "{verbose}");
    }
    let status = &both.remote(&["status"]).json()[0];
    assert_eq!((&status["status"], &status["entries"]), (&json!("caught_up"), &json!(5_003)), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_the_same_with_and_without_a_server() {
    let both = Both::start(&format!("{SERVICES}{GROUPS}")).await;
    for (member, value) in [("m1", "1.00"), ("m2", r#"{"a":[null]}"#), ("gone", "null")] {
        let written = both.remote(&["set", "--in", "g", member, value, "--wait"]);
        assert_eq!(written.code, 0, "{}", written.stderr);
    }
    assert_eq!(both.remote(&["delete", "--in", "g", "gone", "--wait"]).code, 0);
    for args in [
        &["get", "--in", "g", "m1"][..],
        &["get", "--in", "g", "gone"],
        &["groups"],
        &["members", "g"],
        &["members", "g", "--prefix", "m2"],
        &["members", "g", "--prefix", "none"],
        &["members", "none"],
        &["set", "flat", "1"],
        &["dump"],
    ] {
        both.assert_same(args);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_while_its_server_is_started_again() {
    let folder = TempDir::new().unwrap();
    // The same address again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!("{SERVICES}[server]\nlisten = [\"127.0.0.1:{port}\"]\n");
    let config = write_config(folder.path(), &text);
    let mut server = Server::start(&config);
    server.wait_until_ready().await;
    server.set("services", "a", "1").await;
    let token = folder.path().join("token").display().to_string();
    let url = server.url.clone();
    let args = ["watch", "-t", "services", "--server", &url, "--resume", &token];
    let mut watch = RunningCommand::start(&mut ktables(&args));
    assert_eq!(watch.next()["key"], "a");
    assert_eq!(watch.next(), json!({ "event": "synced" }));
    server.set("services", "a", "null").await;
    let change = watch.next();
    assert_eq!(
        (&change["old"], &change["new"], change.get("delete")),
        (&json!(1), &Value::Null, None),
        "{change}"
    );
    server.signal("KILL");
    server.wait();
    let server = Server::start(&config);
    server.wait_until_ready().await;
    server.set("services", "b", "2").await;
    let change = watch.until(|event| event["key"] == "b").pop().unwrap();
    assert_eq!(change["new"], 2, "{change}");
    watch.signal("TERM");
    assert_eq!(watch.wait(), 0);
    server.set("services", "c", "3").await;
    let again = RunningCommand::start(&mut ktables(&args));
    let events = again.until(|event| event["key"] == "c");
    assert!(events.iter().all(|event| event.get("event") != Some(&json!("restarted"))), "{events:?}");
    assert!(events.iter().all(|event| event["key"] != "b"), "it was printed before: {events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_refuses_has_the_exit_code_of_the_same_refusal_without_it() {
    let component = component_path("service-record").display().to_string();
    let both = Both::start(&format!(
        "[codecs.record]\ncomponent = \"{component}\"\n{SERVICES}value_codec = \"record\"\n"
    ))
    .await;
    both.assert_same(&["set", "a", "{}"]);
    both.assert_same(&["set", "a", "not json"]);
    both.assert_same(&["get", "a"]);
    for (args, reason) in [
        (&["get", "a", "--value-codec", "json"][..], "--value-codec"),
        (&["set", "a", "1", "--verify", "off"], "--verify"),
        (&["export", "--out", "x"], "--server"),
        (&["diff", "--against-value-codec", "json"], "--server"),
        (&["rejects", "--in", "g"], "--in"),
    ] {
        let refused = both.remote(args);
        assert_eq!(refused.code, 2, "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    }
    let unknown = run(&mut ktables(&["get", "a", "--server", &both.server.url, "-t", "none"]));
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("none"), "{}", unknown.stderr);
    let nobody = run(&mut ktables(&["get", "a", "--server", "http://127.0.0.1:1", "-t", "services"]));
    assert_eq!(nobody.code, 3, "{}", nobody.stderr);
    assert!(nobody.stderr.contains("http://127.0.0.1:1"), "{}", nobody.stderr);
    let by_variable =
        ktables(&["keys", "-t", "services"]).env("KTABLES_SERVER", &both.server.url).output().unwrap();
    assert!(by_variable.status.success());
    succeed(&mut ktables(&["watch", "--help"]));
}
