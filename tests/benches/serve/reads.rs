//! Reads of an entry of 200 bytes, and answers with constants.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::{Options, Range, pinned};

/// How long each measurement takes, in seconds.
const SECONDS: &str = "5";

/// The load generators: a name, and their arguments besides the address.
const GENERATORS: [(&str, &[&str]); 3] = [
    ("wrk, 16 connections, HTTP/1.1", &["wrk", "-t", "1", "-c", "16", "-d", SECONDS]),
    (
        "h2load, 4 connections x 16 streams, HTTP/2",
        &["h2load", "-t", "1", "-c", "4", "-m", "16", "-D", SECONDS],
    ),
    ("h2load, 16 connections, HTTP/1.1", &["h2load", "--h1", "-t", "1", "-c", "16", "-D", SECONDS]),
];

pub(crate) async fn measure(options: &Options, report: &mut String) {
    let (server, _folder) = options.start("max_requests_per_client = 1024\n");
    server.wait_until_ready().await;
    let value = format!("\"{}\"", "v".repeat(198));
    server.set("services", "billing", &value).await;
    let urls = ["/v1/tables/services/entry?key=billing", "/bench/constant"]
        .map(|path| format!("{}{path}", server.url));
    check_same_size(&urls).await;
    let text = "\n## Reads per second\n\n| load | entry of 200 B | constant | entry / constant |\n|---|---|---|---|\n";
    report.push_str(text);
    for (name, args) in GENERATORS {
        let (mut samples, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..options.rounds {
            // Each begins in turn.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for index in order {
                samples[index].push(run(args, &urls[index]));
            }
            ratios.push(samples[0][round] / samples[1][round]);
        }
        let [entries, constants] = samples.map(|samples| Range::of(samples).format(0));
        writeln!(report, "| {name} | {entries} | {constants} | {} |", Range::of(ratios).format(2))
            .expect("a string");
    }
}

/// Both answers must have about as many bytes.
async fn check_same_size(urls: &[String; 2]) {
    let mut sizes = [0; 2];
    for (url, size) in urls.iter().zip(&mut sizes) {
        let answer = reqwest::get(url).await.expect("answers");
        assert_eq!(answer.status(), 200, "{url}");
        *size = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        *size += answer.text().await.expect("a body").len();
    }
    assert!(sizes[0].abs_diff(sizes[1]) * 20 < sizes[0], "{sizes:?} bytes are not about the same");
}

/// Runs a load generator on the second core, and returns the requests per second.
fn run(args: &[&str], url: &str) -> f64 {
    let mut command = pinned(1, Path::new(args[0]));
    command.args(&args[1..]).arg(url).stdin(Stdio::null());
    let output = command.output().expect("the load generator runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    assert!(!text.contains("Non-2xx"), "{text}");
    let from_wrk = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    let from_h2load =
        || text.lines().find(|line| line.starts_with("finished in"))?.split(", ").nth(1)?.split(' ').next();
    let number = from_wrk.or_else(from_h2load).unwrap_or_else(|| panic!("{text}"));
    number.trim().parse().unwrap_or_else(|_| panic!("{text}"))
}
