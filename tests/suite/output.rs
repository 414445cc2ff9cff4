//! Tests of the output: values are printed unchanged, control characters are escaped, and readers may close
//! it at any time.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ktables_tests::{
    CommandOutput, RunningCommand, Scratch, eventually, ktables, record, root, run, succeed,
};

/// JSON values that Rust's numbers and strings cannot represent exactly.
const EXACT: [&str; 5] = [
    r#"{"n":123456789012345678901}"#,
    r#"{"n":0.1000000000000000055511151231257827}"#,
    r#"{"d":1,"d":2}"#,
    r#"{"n":1e400}"#,
    "\"\\ud800\"",
];

fn test_vector(name: &str) -> String {
    root().join("tests/vectors").join(name).to_str().unwrap().to_owned()
}

/// Runs a command with redirections of the shell, for example `2>&-`.
fn run_redirected(command: &Command, streams: &str) -> CommandOutput {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$@\" {streams}"), "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    run(shell.stdin(Stdio::null()))
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_printed_unchanged() {
    let scratch = Scratch::new(1).await;
    let written = EXACT.iter().enumerate();
    let written: Vec<_> =
        written.map(|(number, value)| record(&format!("1:g{number}"), Some(value.as_bytes()))).collect();
    scratch.write(written).await;
    let lone = test_vector("lone.wasm");
    for codec in ["json", lone.as_str()] {
        let print = |args: &[&str]| {
            let more = ["--group-scheme", "length-prefixed", "--value-codec", codec];
            succeed(&mut scratch.ktables(&[args, &more].concat())).stdout
        };
        for output in ["table", "json"] {
            for (command, name) in [
                (&["members", "g", "--output", output][..], "members"),
                (&["dump", "--output", output], "dump"),
            ] {
                let printed = print(command);
                let values: &[&str] = if codec == "json" { &EXACT } else { &["\"\\ud800\""] };
                for value in values {
                    assert!(printed.contains(value), "{name} {output}: {value} is not in {printed}");
                }
            }
        }
        if codec == "json" {
            for (number, value) in EXACT.iter().enumerate() {
                let key = format!("1:g{number}");
                assert_eq!(print(&["get", &key]).trim_end(), *value);
                for output in ["table", "json"] {
                    assert!(print(&["get", &key, "--verbose", "--output", output]).contains(value));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_in_records_do_not_reach_a_terminal() {
    let scratch = Scratch::new(1).await;
    let bad =
        ["\u{1b}[31mred", "two\nlines", "\u{202e}right", "bell\u{7}", "\u{9b}31m", "\u{2066}iso", "\u{2028}"];
    let mut records = vec![record("1:g\u{1b}]0;x\u{7}", Some(b"1"))];
    for key in bad {
        records.push(record(key, Some(b"1")));
        records.push(record(key, Some(b"{")));
    }
    scratch.write(records).await;
    let assert_harmless = |context: &str, text: &str| {
        let is_bad = |c: char| {
            c.is_control() && c != '\n'
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
        };
        assert!(!text.contains(is_bad), "{context}: {text:?}");
    };
    for args in [&["keys"][..], &["members", "g"], &["status"]] {
        let more = ["--group-scheme", "length-prefixed", "--output", "table"];
        let printed = succeed(&mut scratch.ktables(&[args, &more].concat()));
        assert_harmless(&format!("{args:?}"), &printed.stdout);
        assert_harmless(&format!("{args:?}"), &printed.stderr);
    }
    let keys = succeed(&mut scratch.ktables(&["keys", "--output", "table"])).stdout;
    assert_eq!(keys.lines().count(), bad.len() + 1, "each key is on its own line: {keys}");
    for key in bad {
        let missing = format!("{key}?");
        for args in [&["get", &missing][..], &["set", &missing, "{"], &["set", "a", &missing]] {
            let refused = run(&mut scratch.ktables(args));
            assert_eq!(refused.code, 1, "{args:?}");
            assert_harmless(&format!("{args:?}"), &refused.stderr);
            let is_message =
                |line: &str| ["error:", "warning:"].iter().any(|start| line.trim_start().starts_with(start));
            assert!(refused.stderr.lines().all(is_message), "{args:?}: {}", refused.stderr);
        }
    }
    // Text from a component: its description and its errors.
    for name in ["escname.wasm", "escconfig.wasm"] {
        let path = test_vector(name);
        let results = [
            run(&mut ktables(&["codec", "inspect", &path, "--output", "table"])),
            run(&mut scratch.ktables(&["get", "a", "--value-codec", &path])),
        ];
        for ended in &results {
            assert_harmless(name, &ended.stderr);
            assert_harmless(name, &ended.stdout);
            assert!(
                !ended.stderr.lines().any(|line| line.trim_start().starts_with("error: forged")),
                "{}",
                ended.stderr
            );
            assert!(ended.stderr.len() < 20_000, "{name}: {} bytes", ended.stderr.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_guests_are_rate_limited() {
    let scratch = Scratch::new(1).await;
    let many = (0..6000).map(|number| record(&format!("k{number}"), Some(b"1")));
    scratch.write(many.collect()).await;
    let codec = test_vector("floodwarn.wasm");
    for (level, limit) in [("warn", 8), ("warn,ktables::guest=trace", 256)] {
        let mut keys = scratch.ktables(&["keys", "--value-codec", &codec]);
        let output = succeed(keys.env("KTABLES_LOG", level));
        assert_eq!(output.stdout.lines().count(), 6000);
        let bytes = output.stderr.len();
        assert!(bytes < limit * 1024, "{level}: {bytes} bytes of messages");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_although_their_output_is_closed_or_full() {
    let scratch = Scratch::new(1).await;
    for (number, streams) in ["2>&-", "2>/dev/full", ">&-", ">&- 2>&-"].into_iter().enumerate() {
        let number = number.to_string();
        let set = run_redirected(&scratch.ktables(&["set", "a", &number]), streams);
        assert_eq!(set.code, 0, "{streams}: {}", set.stderr);
        assert_eq!(succeed(&mut scratch.ktables(&["get", "a"])).stdout.trim_end(), number);
        // The exit code for the answer "no" stays the same.
        for args in [&["get", "missing"][..], &["get", "a", "--in", "g", "--group-scheme", "length-prefixed"]]
        {
            assert_eq!(run_redirected(&scratch.ktables(args), streams).code, 1, "{args:?} {streams}");
        }
        assert_eq!(run_redirected(&scratch.ktables(&["set", "a", "no json"]), streams).code, 1, "{streams}");
        assert_eq!(run_redirected(&scratch.ktables(&["nonsense"]), streams).code, 2, "{streams}");
        let mut invalid = scratch.ktables(&["get", "a"]);
        invalid.env("KTABLES_LOG", "a=nonsense");
        assert_eq!(run_redirected(&invalid, streams).code, 0, "{streams}");
        let file = scratch.path().join("lines");
        std::fs::write(&file, "{\"key\":\"b\",\"value\":1}\nnonsense\n").unwrap();
        let import = format!("{streams} < {}", file.display());
        assert_eq!(run_redirected(&scratch.ktables(&["import"]), &import).code, 1, "{streams}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_ends_with_an_error_deletes_its_entry() {
    let scratch = Scratch::new(1).await;
    let heartbeat = scratch.ktables(&["set", "a", "1", "--heartbeat", "50ms"]);
    assert_eq!(run_redirected(&heartbeat, ">/dev/full").code, 3);
    assert_eq!(run(&mut scratch.ktables(&["get", "a"])).code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_continue_until_a_signal_stops_them() {
    for (signals, is_nohup) in [(&["TERM"][..], false), (&["HUP"], false), (&["HUP", "TERM"], true)] {
        check_that_signals_stop_heartbeats(signals, is_nohup).await;
    }
}

/// Checks that heartbeats continue after each signal but the last, which stops them. SIGHUP is sent twice, as
/// when a terminal is closed.
async fn check_that_signals_stop_heartbeats(signals: &[&str], is_nohup: bool) {
    let scratch = Scratch::new(1).await;
    let plain = scratch.ktables(&["set", "a", "1", "--heartbeat", "50ms"]);
    // This process may have been started with `nohup`, and its children ignore SIGHUP then.
    let wrapper: &[&str] = if is_nohup { &["nohup"] } else { &["env", "--default-signal=HUP"] };
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let end_offset = || async { scratch.log.offsets(&scratch.topic).await.unwrap()[0].end };
    for signal in signals {
        let before = end_offset().await;
        ktables_tests::eventually_ok("heartbeats continue", async || {
            let now = end_offset().await;
            if now > before + 2 { Ok(()) } else { Err(format!("{now} records")) }
        })
        .await;
        for _ in 0..if *signal == "HUP" { 2 } else { 1 } {
            // OK to ignore: the process may have ended between the two signals.
            let _ = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        }
    }
    let status = eventually("the command exits", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_eq!(run(&mut scratch.ktables(&["get", "a"])).code, 1, "the entry is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_ends_when_its_output_is_closed() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let mut watch = scratch.ktables(&["watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(watch.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("synced") {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    // `watch` writes nothing more, so it cannot notice the closed output by a failed write.
    drop(reader);
    let status = eventually("the command exits", || watch.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_prints_each_rejected_record() {
    let scratch = Scratch::new(1).await;
    let watch = RunningCommand::start(&mut scratch.ktables(&["watch"]));
    watch.until(|line| line["event"] == "synced");
    scratch.put("a", Some(b"{")).await;
    succeed(&mut scratch.ktables(&["produce", "--keyless", "--value", "1"]));
    let key = scratch.path().join("key");
    std::fs::write(&key, [0xff]).unwrap();
    succeed(&mut scratch.ktables(&["produce", "--key-file", key.to_str().unwrap(), "--value", "1"]));
    let rejected: Vec<_> = (0..3).map(|_| watch.next()).collect();
    let printed =
        rejected.iter().map(|line| (line["event"].as_str(), line["key"].as_str(), line["offset"].as_i64()));
    let expected = [Some("a"), None, None].into_iter().zip(0..);
    let expected = expected.map(|(key, offset)| (Some("rejected"), key, Some(offset)));
    assert_eq!(printed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let help = succeed(&mut ktables(&["watch", "--help"])).stdout;
    for event in
        ["entry", "synced", "set", "delete", "rejected", "status", "restarted", "generation", "lagged"]
    {
        assert!(help.contains(event), "{event} is not in the help: {help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_of_a_member_reports_that_its_record_was_rejected() {
    let scratch = Scratch::new(1).await;
    scratch.put("1:gm", Some(b"{")).await;
    let missing = run(&mut scratch.ktables(&["get", "--in", "g", "m", "--group-scheme", "length-prefixed"]));
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("rejected") && missing.stderr.contains("offset 0"), "{}", missing.stderr);
}

#[test]
fn a_digest_may_be_upper_case_and_must_be_valid() {
    let path = test_vector("lone.wasm");
    let inspected = succeed(&mut ktables(&["codec", "inspect", &path, "--output", "json"])).json().remove(0);
    let digest = inspected["digest"].as_str().unwrap().to_owned();
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("ktables.toml");
    let get = |digest: &str| {
        let text = format!(
            "[logs.l]\nurl = \"dir:{}\"\n[codecs.c]\ncomponent = \"{path}\"\ndigest = \"{digest}\"\n\
             [tables.t]\nlog = \"l\"\ntopic = \"t\"\nvalue_codec = \"c\"\n",
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        run(&mut ktables(&["get", "a", "--config", config.to_str().unwrap(), "-t", "t"]))
    };
    succeed(&mut ktables(&[
        "topic",
        "ensure",
        "--log",
        &format!("dir:{}", folder.path().display()),
        "--topic",
        "t",
    ]));
    let (kind, hex) = digest.split_once(':').unwrap();
    for good in [digest.clone(), format!("{kind}:{}", hex.to_uppercase())] {
        assert_eq!(get(&good).code, 1, "{good}: {}", get(&good).stderr);
    }
    for bad in [
        hex.to_owned(),
        format!("sha512:{hex}"),
        format!("{kind}:{}", &hex[1..]),
        format!("{digest}0"),
        String::new(),
    ] {
        let refused = get(&bad);
        assert_eq!(refused.code, 2, "{bad}: {}", refused.stderr);
    }
}
