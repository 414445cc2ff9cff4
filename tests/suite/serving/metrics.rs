//! Metrics: their formats, and the dashboard and alert rules that name them.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use ktables_tests::kafka::target;
use ktables_tests::server::Server;
use ktables_tests::{component_path, root};
use reqwest::Method;
use reqwest::header::ACCEPT;

/// Runs promtool, which the set-up unpacks, with this standard input. Returns what it printed.
fn promtool(args: &[&str], input: &str) -> String {
    let program = target().join("tools/debian/prometheus/usr/bin/promtool");
    let mut command = Command::new(&program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}: `cargo xtask setup` unpacks it", program.display()));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {args:?}: {text}");
    text
}

/// Starts a server with a component that has decoded, rejected and encoded, and whose tables were read and written.
async fn start() -> (Server, tempfile::TempDir) {
    let component = component_path("service-record").display().to_string();
    let (server, folder) = Server::with_tables(&format!(
        "[codecs.record]\ncomponent = \"{component}\"\n[tables.services]\nlog = \"local\"\ntopic = \"services\"\n\
         value_codec = \"record\"\nensure_topic = true\n[tables.raw]\nlog = \"local\"\ntopic = \"services\"\n\
         value_codec = \"json\"\nensure_topic = true\n"
    ))
    .await;
    let record = r#"{"host":"a","port":80,"weight":1,"healthy":true,"draining":false,"started":0,"tags":[]}"#;
    server.set("services", "a", record).await;
    assert_eq!(server.get("/v1/tables/services/entry?key=a&fresh=true").await.status, 200);
    // The other table has other codecs: what it writes is rejected by the component, and the other way round.
    server.set("raw", "b", "5").await;
    assert_eq!(server.get("/v1/tables/services/entry?key=b&fresh=true").await.status, 404);
    (server, folder)
}

/// Returns the names of metrics in a text: words that begin as ours, or as those of processes.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let prefixes = ["ktables_", "process_"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_what_prometheus_reads() {
    let (server, _folder) = start().await;
    let text = server.get("/metrics").await;
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    promtool(&["check", "metrics"], &text.text);
    let open = server
        .send(server.request(Method::GET, "/metrics").header(ACCEPT, "application/openmetrics-text"))
        .await;
    assert!(open.text.ends_with("# EOF\n"), "{}", open.text);
    let lines: Vec<&str> = text.text.lines().collect();
    let has = |start: &str, end: &str| {
        assert!(
            lines.iter().any(|line| line.starts_with(start) && line.ends_with(end)),
            "{start} … {end}: {}",
            text.text
        );
    };
    has("ktables_table_status{table=\"services\",status=\"caught_up\"}", " 1.0");
    has("ktables_table_entries{table=\"services\"}", " 1.0");
    has("ktables_table_rejected_records_total{table=\"services\",kind=\"unsupported\"}", " 1.0");
    has("ktables_table_barrier_latency_seconds_count{table=\"services\"}", " 2");
    has("ktables_table_apply_latency_seconds_count{table=\"services\"}", " 2");
    has("ktables_component_rejects_total{component=\"service-record\"", "kind=\"unsupported\"} 1.0");
    let zero = |line: &&&str| line.starts_with("ktables_component_") && line.ends_with(" 0.0");
    let unused: Vec<_> = lines.iter().filter(zero).collect();
    let may_be_unused = ["dropped_instances", "cache_hits", "compil"];
    assert!(unused.iter().all(|line| may_be_unused.iter().any(|name| line.contains(name))), "{unused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
    let (server, _folder) = start().await;
    let known = names(&server.get("/metrics").await.text);
    for file in ["examples/serve/dashboard.json", "examples/serve/alerts.yml", "docs/operations.md"] {
        let used = names(&std::fs::read_to_string(root().join(file)).unwrap());
        assert!(!used.is_empty(), "{file}");
        // Only after a fault.
        let is_rare = |name: &&String| name.as_str() == "ktables_component_faults_total";
        let unknown: Vec<_> = used.difference(&known).filter(|name| !is_rare(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    promtool(&["check", "rules", &root().join("examples/serve/alerts.yml").display().to_string()], "");
}
