//! Tests of the command, end to end.

use std::fs;

use ktables_tests::{
    CommandOutput, LogKind, Scratch, TOPIC, component_path, ktables, on_each_log, parse, record, run,
    run_with_stdin, succeed, unique,
};
use serde_json::{Value, json};

fn stdout(ended: &CommandOutput) -> &str {
    ended.stdout.trim_end()
}

async fn set_get_delete(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    let set = succeed(&mut scratch.ktables(&["set", "a", "{\"n\": 1}"])).json().remove(0);
    assert_eq!(set["offset"], 0);
    assert_eq!(stdout(&succeed(&mut scratch.ktables(&["get", "a"]))), "{\"n\": 1}");
    let piped = run_with_stdin(&mut scratch.ktables(&["set", "a", "-"]), "-2.5\n");
    assert_eq!(piped.code, 0, "{}", piped.stderr);
    let verbose = succeed(&mut scratch.ktables(&["get", "a", "--verbose"])).json().remove(0);
    assert_eq!(
        (&verbose["value"], &verbose["offset"], &verbose["status"]),
        (&json!(-2.5), &json!(1), &json!("caught_up"))
    );
    succeed(&mut scratch.ktables(&["delete", "a"]));
    let missing = run(&mut scratch.ktables(&["get", "a"]));
    assert_eq!((missing.code, stdout(&missing)), (1, ""));
    assert!(missing.stderr.contains("no entry for key `a`"), "{}", missing.stderr);
    let refused = run(&mut scratch.ktables(&["set", "a", "text"]));
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("not JSON"), "{}", refused.stderr);
}

async fn groups_and_members(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    let grouped = |args: &[&str]| scratch.ktables(&[args, &["--group-scheme", "length-prefixed"]].concat());
    succeed(&mut grouped(&["set", "--in", "größe", "host", "1"]));
    succeed(&mut grouped(&["set", "--in", "größe", "other", "2"]));
    assert_eq!(stdout(&succeed(&mut grouped(&["get", "--in", "größe", "host"]))), "1");
    assert_eq!(succeed(&mut grouped(&["groups"])).json(), [json!({"group": "größe", "members": 2})]);
    let members = succeed(&mut grouped(&["members", "größe"])).json();
    assert_eq!(members.iter().map(|m| &m["member"]).collect::<Vec<_>>(), ["host", "other"]);
    assert_eq!(succeed(&mut grouped(&["keys"])).json(), ["5:größehost", "5:größeother"]);
    succeed(&mut grouped(&["delete", "--in", "größe", "host"]));
    assert_eq!(run(&mut grouped(&["get", "--in", "größe", "host"])).code, 1);
    for (args, missing) in [
        (&["members", "none"][..], "no members in group `none`"),
        (&["members", "größe", "--prefix", "x"], "no member of group `größe` begins with `x`"),
    ] {
        let ended = run(&mut grouped(args));
        assert!(ended.code == 1 && ended.stderr.contains(missing), "{}", ended.stderr);
    }
    let flat = run(&mut scratch.ktables(&["groups"]));
    assert_eq!(flat.code, 2);
    assert!(flat.stderr.contains("group_scheme"), "{}", flat.stderr);
    let imported =
        run_with_stdin(&mut grouped(&["import"]), "{\"group\":\"g\",\"member\":\"m\",\"value\":[1]}\n");
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    assert_eq!(stdout(&succeed(&mut grouped(&["get", "--in", "g", "m"]))), "[1]");
}

async fn keys_prints_ranges(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.write(["a", "ab", "b", "c"].map(|key| record(key, Some(b"1"))).to_vec()).await;
    let keys = |args: &[&str]| succeed(&mut scratch.ktables(&[&["keys"], args].concat())).json();
    assert_eq!(keys(&[]), ["a", "ab", "b", "c"]);
    assert_eq!(keys(&["--prefix", "a"]), ["a", "ab"]);
    assert_eq!(keys(&["--start", "ab", "--end", "c"]), ["ab", "b"]);
    assert_eq!(keys(&["--limit", "2"]), ["a", "ab"]);
    assert_eq!(keys(&["--start", "z", "--end", "a"]), [Value::Null; 0]);
    let table = succeed(&mut scratch.ktables(&["keys", "--output", "table"]));
    assert_eq!(table.stdout, "a\nab\nb\nc\n");
}

async fn import_reports_refused_lines_and_writes_the_rest(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    let lines = "{\"key\":\"a\",\"value\":1}\nnonsense\n\n{\"key\":\"b\"}\n{\"key\":\"a\",\"delete\":true}\n{\"key\":\"c\",\"value\":null}\n{\"kee\":\"d\",\"value\":1}";
    let imported = run_with_stdin(&mut scratch.ktables(&["import"]), lines);
    assert_eq!(imported.code, 1);
    let report = &imported.json()[0];
    assert_eq!((&report["acknowledged"], &report["refused"]), (&json!(3), &json!(3)));
    for line in ["line 2", "line 4", "line 7"] {
        assert!(imported.stderr.contains(line), "{line}: {}", imported.stderr);
    }
    let dump = succeed(&mut scratch.ktables(&["dump"]));
    assert_eq!(
        dump.json().iter().map(|entry| (&entry["key"], &entry["value"])).collect::<Vec<_>>(),
        [(&json!("c"), &json!(null))]
    );
    // A dump can be imported unchanged, including JSON null.
    let copy = kind.scratch(1).await;
    assert_eq!(run_with_stdin(&mut copy.ktables(&["import"]), &dump.stdout).code, 0);
    assert_eq!(succeed(&mut copy.ktables(&["get", "c"])).stdout, "null\n");
}

async fn a_record_that_is_too_large_does_not_stop_an_import(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let large = format!("{{\"key\":\"large\",\"value\":\"{}\"}}", "x".repeat(2 << 20));
    let lines = format!("{{\"key\":\"a\",\"value\":1}}\n{large}\n{{\"key\":\"b\",\"value\":2}}\n");
    let imported = run_with_stdin(&mut scratch.ktables(&["import"]), &lines);
    assert_eq!(imported.code, 1, "{}", imported.stderr);
    assert_eq!(imported.json()[0]["acknowledged"], 2);
    assert!(imported.stderr.contains("line 2: key `large`"), "{}", imported.stderr);
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let refused = run(&mut scratch.ktables(&["set", "deep", &nested]));
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("127 levels"), "{}", refused.stderr);
}

async fn raw_records_rejects_and_notices(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let bytes = scratch.path().join("value.bin");
    fs::write(&bytes, b"\xff\xfe").unwrap();
    succeed(&mut scratch.ktables(&["set", "a", "1"]));
    let produce = |args: &[&str]| succeed(&mut scratch.ktables(&[&["produce"], args].concat()));
    produce(&["--key", "a", "--value-file", bytes.to_str().unwrap(), "--header", "origin=test"]);
    produce(&["--keyless", "--value", "1"]);
    produce(&["--key", "b", "--null", "--partition", "0"]);
    let rejects = succeed(&mut scratch.ktables(&["rejects"])).json();
    assert_eq!(rejects.iter().map(|reject| &reject["kind"]).collect::<Vec<_>>(), ["malformed", "keyless"]);
    let expected = json!({"partition": 0, "offset": 1, "kind": "malformed", "component": null, "key": "a", "part": "value", "raw": "//4=", "raw_len": 2});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&rejects[0][name], value, "{name}");
    }
    let verbose = succeed(&mut scratch.ktables(&["get", "a", "--verbose"])).json().remove(0);
    assert_eq!((&verbose["value"], &verbose["rejected"]["offset"]), (&json!(1), &json!(1)));
    let status = succeed(&mut scratch.ktables(&["status"])).json().remove(0);
    assert_eq!(
        (&status["keyless"], &status["tombstones"], &status["records"]),
        (&json!(1), &json!(1), &json!(4))
    );
    assert_eq!(status["rejects"], json!({"malformed": 1}));
    assert_eq!(
        status["partitions"][0],
        json!({"partition": 0, "start": 0, "position": 4, "end": 4, "lag": 0})
    );
}

async fn topics_are_ensured_and_described(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let url = scratch.url();
    let new = unique("new");
    let topic = |command: &str, more: &[&str]| {
        ktables(&[&["topic", command, "--log", &url, "--topic", &new], more].concat())
    };
    let missing = run(&mut topic("describe", &[]));
    assert_eq!(missing.code, 3);
    assert!(missing.stderr.contains("ktables topic ensure"), "{}", missing.stderr);
    let created = succeed(&mut topic("ensure", &["--partitions", "3"])).json().remove(0);
    assert_eq!(
        (&created["outcome"], created["partitions"].as_array().unwrap().len()),
        (&json!("created"), 3)
    );
    let verified = succeed(&mut topic("ensure", &["--partitions", "5"]));
    assert_eq!(verified.json()[0]["outcome"], "verified");
    assert!(verified.stderr.contains("3 partitions"), "{}", verified.stderr);
    assert_eq!(succeed(&mut topic("describe", &[])).json()[0]["id"], created["id"]);
}

#[test]
fn codec_inspect_describes_a_component_or_says_why_it_is_refused() {
    let path = component_path("deb822");
    let inspected = succeed(&mut ktables(&["codec", "inspect", path.to_str().unwrap()])).json().remove(0);
    assert_eq!((&inspected["accepted"], &inspected["name"]), (&json!(true), &json!("deb822")));
    assert!(inspected["digest"].as_str().unwrap().starts_with("sha256:"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.wasm");
    for (bytes, reason) in
        [(&b"\0asm\x01\0\0\0"[..], "codec build"), (b"nonsense", "not a WebAssembly component")]
    {
        fs::write(&file, bytes).unwrap();
        let refused = run(&mut ktables(&["codec", "inspect", file.to_str().unwrap()]));
        assert_eq!(refused.code, 1);
        assert!(refused.stdout.contains(reason), "{}", refused.stdout);
        let refused = run(&mut ktables(&[
            "get",
            "k",
            "--log",
            "dir:x",
            "--topic",
            "t",
            "--value-codec",
            file.to_str().unwrap(),
        ]));
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let scratch = Scratch::new(1).await;
    let config = scratch.path().join("ktables.toml");
    fs::write(
        &config,
        format!(
            "[logs.l]\nurl = \"{}\"\n[tables.services]\nlog = \"l\"\ntopic = \"{TOPIC}\"\n",
            scratch.url()
        ),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["get", "k"], 2, "which table?"),
        (&["get", "k", "--config", config, "-t", "servics"], 2, "did you mean `services`?"),
        (&["get", "k", "--config", "no-such-file.toml", "-t", "x"], 3, "no-such-file.toml"),
        (&["get", "k", "--log", "kafak:x", "--topic", "t"], 2, "dir:PATH"),
        (&["get", "k", "--log", "dir:x", "--topic", "t"], 3, "ktables topic ensure"),
        (&["get", "k", "--log", "dir:x", "--topic", "t", "--value-codec", "jsn"], 2, "utf8, bytes, json"),
        (&["get", "k", "--log", "dir:x", "--topic", "t", "--value-codec", "no.wasm"], 3, "no.wasm"),
        (&["get", "k", "--log", "dir:x"], 2, "--topic"),
        (&["produce", "--log", "dir:x", "--topic", "t", "--key", "k"], 2, "--value"),
    ];
    for (args, code, hint) in cases {
        let ended = run(&mut ktables(args));
        assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(hint), "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
    assert_eq!(run(&mut ktables(&["get", "k", "--config", config, "-t", "services"])).code, 1);
}

#[tokio::test]
async fn a_configuration_sets_the_digest_and_the_config_of_a_component() {
    let scratch = Scratch::new(1).await;
    let component = component_path("probe");
    let digest = ktables_tests::component("probe").id().digest.clone();
    let write = |digest: &str, mode: &str| {
        let text = format!(
            "[logs.l]\nurl = \"dir:.\"\n[codecs.probe]\ncomponent = {component:?}\ndigest = \"{digest}\"\nconfig = {{ mode = \"{mode}\" }}\n\
             [tables.t]\nlog = \"l\"\ntopic = \"{TOPIC}\"\nvalue_codec = \"probe\"\n"
        );
        fs::write(scratch.path().join("ktables.toml"), text).unwrap();
    };
    // The configuration in the current folder is found without `--config`.
    let here = |args: &[&str]| {
        let mut command = ktables(&[args, &["-t", "t"]].concat());
        command.current_dir(scratch.path());
        command
    };
    write(&digest, "json");
    succeed(&mut here(&["set", "a", "[1]"]));
    assert_eq!(stdout(&succeed(&mut here(&["get", "a"]))), "[1]");
    write(&digest, "nonsense");
    let refused = run(&mut here(&["get", "a"]));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("nonsense"), "{}", refused.stderr);
    write("sha256:00", "json");
    let refused = run(&mut here(&["get", "a"]));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("sha256:00"), "{}", refused.stderr);
    // Messages of a guest are logged if `KTABLES_LOG` selects them.
    write(&digest, "log");
    let logged = run(here(&["get", "a"]).env("KTABLES_LOG", "ktables::guest=trace"));
    assert!(logged.stderr.contains("[1]") && logged.stderr.contains("probe"), "{}", logged.stderr);
    // The messages of the command are still logged, also if the variable is not valid.
    for filter in ["ktables::guest=trace", "a=nonsense"] {
        let missing = run(here(&["get", "missing"]).env("KTABLES_LOG", filter));
        assert!(missing.stderr.contains("no entry for key `missing`"), "{filter}: {}", missing.stderr);
        assert_eq!(missing.stderr.contains("KTABLES_LOG"), filter == "a=nonsense", "{}", missing.stderr);
    }
}

async fn a_reader_that_closes_the_pipe_early_is_not_an_error(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.write((0..20_000).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    let mut head = std::process::Command::new("bash");
    let dump = format!("{:?} | head -1; exit ${{PIPESTATUS[0]}}", scratch.ktables(&["dump"]));
    let dump = dump.split_once(" \"dump\"").map_or(dump.clone(), |(program, rest)| {
        // The debug output of a command begins with its environment variables.
        format!("{} dump{rest}", program.rsplit(' ').next().unwrap())
    });
    let ended = run(head.args(["-c", &dump]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(parse(&ended.stdout)["key"], "k0");
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands = [
        &["get"][..],
        &["keys"],
        &["groups"],
        &["members"],
        &["dump"],
        &["set"],
        &["delete"],
        &["import"],
        &["watch"],
        &["status"],
        &["rejects"],
        &["produce"],
        &["schema", "list"],
        &["schema", "get"],
        &["schema", "versions"],
        &["schema", "add"],
        &["schema", "check"],
        &["schema", "diff"],
        &["schema", "delete"],
        &["schema", "compat", "get"],
        &["schema", "compat", "set"],
        &["schema", "ids"],
        &["topic", "ensure"],
        &["topic", "list"],
        &["topic", "describe"],
        &["topic", "delete"],
        &["codec", "inspect"],
        &["codec", "build"],
        &["codec", "wit"],
        &["checkpoint", "inspect"],
        &["checkpoint", "remove"],
        &["completions"],
        &[],
    ];
    for command in commands {
        let help = succeed(&mut ktables(&[command, &["--help"]].concat()));
        assert!(help.stdout.contains("Example"), "{command:?}: {}", help.stdout);
        assert!(!help.stdout.contains("[`"), "{command:?} has links of the source: {}", help.stdout);
    }
}

#[test]
fn each_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = succeed(&mut ktables(&["completions", shell])).stdout;
        assert!(script.contains("group-scheme") && script.contains("checkpoint"), "{shell}: {script:.200}");
    }
}

async fn topics_are_listed_and_deleted(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let url = scratch.url();
    let names = || -> Vec<Value> {
        let listed = succeed(&mut ktables(&["topic", "list", "--log", &url]));
        listed.json().into_iter().map(|line| line["topic"].clone()).collect()
    };
    assert!(names().contains(&json!(scratch.topic.name)), "{:?}", names());
    assert!(!names().iter().any(|name| name.as_str().unwrap().starts_with("__")), "{:?}", names());
    let delete = ["topic", "delete", "--log", &url, "--topic", &scratch.topic.name];
    let unconfirmed = run(&mut ktables(&delete));
    assert!(unconfirmed.code == 2 && unconfirmed.stderr.contains("--yes"), "{}", unconfirmed.stderr);
    succeed(&mut ktables(&[&delete[..], &["--yes"]].concat()));
    assert!(!names().contains(&json!(scratch.topic.name)), "{:?}", names());
    let missing = run(&mut ktables(&[&delete[..], &["--yes"]].concat()));
    assert!(missing.code == 3 && missing.stderr.contains(&scratch.topic.name), "{}", missing.stderr);
}

async fn lists_are_restricted_by_group_and_prefix(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let grouped = |args: &[&str]| {
        succeed(&mut scratch.ktables(&[args, &["--group-scheme", "length-prefixed"]].concat())).json()
    };
    for (group, member) in [("a", "x1"), ("a", "x2"), ("a", "y"), ("b", "x1")] {
        grouped(&["set", "--in", group, member, "1"]);
    }
    for key in ["1:ax3", "1:bx9"] {
        scratch.put(key, Some(b"{")).await;
    }
    assert_eq!(grouped(&["keys", "--in", "a"]), ["1:ax1", "1:ax2", "1:ay"]);
    let members = grouped(&["members", "a", "--prefix", "x"]);
    assert_eq!(members.iter().map(|line| &line["member"]).collect::<Vec<_>>(), ["x1", "x2"]);
    let keys = |args: &[&str]| -> Vec<Value> {
        grouped(&[&["rejects"], args].concat()).into_iter().map(|line| line["key"].clone()).collect()
    };
    assert_eq!(keys(&[]), ["1:ax3", "1:bx9"]);
    assert_eq!(keys(&["--in", "b"]), ["1:bx9"]);
    assert_eq!(keys(&["--prefix", "1:a"]), ["1:ax3"]);
    let flat = run(&mut scratch.ktables(&["keys", "--in", "a"]));
    assert!(flat.code == 2 && flat.stderr.contains("group_scheme"), "{}", flat.stderr);
}

async fn tables_are_printed_or_refused(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    scratch.put("b", Some(b"2")).await;
    scratch.put("b", Some(b"{")).await;
    // Only the second row has a rejected record; its cell has a heading, too.
    let dump = succeed(&mut scratch.ktables(&["dump", "--output", "table"])).stdout;
    let column = dump.lines().next().unwrap().find("rejected");
    assert!(column.is_some() && dump.lines().nth(2).unwrap().find("{") == column, "{dump}");
    for command in ["dump", "rejects", "status"] {
        let table = succeed(&mut scratch.ktables(&[command, "--output", "table"])).stdout;
        assert!(table.lines().all(|line| line.trim_end() == line), "{command}: {table}");
    }
    let refused = run(&mut scratch.ktables(&["watch", "--output", "table"]));
    assert!(refused.code == 2 && refused.stderr.contains("JSON only"), "{}", refused.stderr);
}

async fn numbers_may_be_negative_and_doubtful_times_are_reported(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    succeed(&mut scratch.ktables(&["set", "-5", "-1"]));
    assert_eq!(stdout(&succeed(&mut scratch.ktables(&["get", "-5"]))), "-1");
    let produce = |timestamp: &str| {
        run(&mut scratch.ktables(&["produce", "--key", "a", "--value", "1", "--timestamp", timestamp]))
    };
    // 2026 in microseconds.
    let late = produce("1795910400000000");
    // Brokers refuse it.
    assert_eq!(late.code, if kind == LogKind::Kafka { 3 } else { 0 }, "{}", late.stderr);
    assert!(late.stderr.contains("warning:") && late.stderr.contains("milliseconds"), "{}", late.stderr);
    let past = produce("-1000");
    assert!(!past.stderr.contains("--timestamp="), "{}", past.stderr);
    let refused = run(&mut scratch.ktables(&["get", "a", "--ttl", "0s"]));
    assert!(refused.code == 2 && refused.stderr.contains("greater than zero"), "{}", refused.stderr);
    let home = run(&mut ktables(&["topic", "list", "--log", "dir:~/data"]));
    assert!(home.code == 2 && home.stderr.contains('~'), "{}", home.stderr);
}

#[test]
fn arguments_replace_settings_of_a_configured_table() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("ktables.toml");
    let text = "[logs.here]\nurl = \"dir:data\"\n[tables.t]\nlog = \"here\"\ntopic = \"t\"\nttl = \"1h\"\n";
    fs::write(&config, text).unwrap();
    let table = |args: &[&str]| ktables(&[args, &["-t", "t", "--config", config.to_str().unwrap()]].concat());
    let url = format!("dir:{}", folder.path().join("data").display());
    succeed(&mut ktables(&["topic", "ensure", "--log", &url, "--topic", "t"]));
    succeed(&mut table(&["set", "a", "1"]));
    assert_eq!(stdout(&succeed(&mut table(&["get", "a"]))), "1");
    assert_eq!(stdout(&succeed(&mut table(&["get", "a", "--value-codec", "utf8"]))), "\"1\"");
    // A component, with a configuration and limits of its own; the key codec has another one.
    let deb822 = component_path("deb822");
    let deb822 = deb822.to_str().unwrap();
    let limited = ["get", "a", "--value-codec", deb822, "--codec-limit"];
    let small = run(&mut table(&[&limited[..], &["memory=64KiB"]].concat()));
    assert!(small.code == 3 && small.stderr.contains("memory"), "{}", small.stderr);
    let unknown = run(&mut table(&[&limited[..], &["memori=1MiB"]].concat()));
    assert!(unknown.code == 2 && unknown.stderr.contains("memori"), "{}", unknown.stderr);
    let no_json = run(&mut table(&["get", "a", "--value-codec", deb822, "--value-codec-config", "[]"]));
    assert!(no_json.code == 2 && no_json.stderr.contains("--value-codec-config"), "{}", no_json.stderr);
    let built_in = run(&mut table(&["get", "a", "--value-codec", "json", "--value-codec-config", "{}"]));
    assert!(built_in.code == 2 && built_in.stderr.contains("component"), "{}", built_in.stderr);
    // A file with the name of a built-in codec does not hide it. Names of unknown codecs are reported first.
    fs::write(folder.path().join("json"), "").unwrap();
    let json = ["get", "a", "--value-codec", "json"];
    assert_eq!(stdout(&succeed(table(&json).current_dir(folder.path()))), "1");
    fs::write(&config, format!("{text}[codecs.deb]\ncomponent = \"x.wasm\"\n")).unwrap();
    let typo = run(&mut table(&["get", "a", "--value-codec", "debb", "--value-codec-config", "{}"]));
    assert!(typo.code == 2 && typo.stderr.contains("did you mean `deb`?"), "{}", typo.stderr);
    let known = run(&mut table(&["get", "a", "--value-codec", "deb", "--key-codec", "utf"]));
    let names = "(known: avro, deb, json-schema, protobuf, utf8, bytes, json)";
    assert!(known.code == 2 && known.stderr.contains(names), "{}", known.stderr);
    let useless = run(&mut table(&["get", "a", "--codec-limit", "memory=1MiB"]));
    assert!(useless.code == 2 && useless.stderr.contains("only for components"), "{}", useless.stderr);
    let limited_typo =
        run(&mut table(&["get", "a", "--value-codec", "debb", "--codec-limit", "memory=1MiB"]));
    assert!(limited_typo.stderr.contains("did you mean `deb`?"), "{}", limited_typo.stderr);
    let ignored = run(&mut ktables(&["get", "a", "--log", &url, "--topic", "t", "--config", "x.toml"]));
    assert!(ignored.code == 2 && ignored.stderr.contains("--config"), "{}", ignored.stderr);
    // The configuration names codecs, not files.
    fs::write(&config, text.replace("ttl", "value_codec = \"./deb822.wasm\"\nttl")).unwrap();
    let file = run(&mut table(&["get", "a"]));
    assert!(file.code == 2 && file.stderr.contains("there is no codec"), "{}", file.stderr);
    fs::write(&config, text.replace("1h", "0s")).unwrap();
    let zero = run(&mut table(&["get", "a"]));
    assert!(zero.code == 2 && zero.stderr.contains("ttl"), "{}", zero.stderr);
    fs::write(&config, text.replace("dir:data", "dir:~/data")).unwrap();
    let home = run(&mut table(&["get", "a"]));
    assert!(home.code == 2 && home.stderr.contains("${HOME}"), "{}", home.stderr);
}

on_each_log!(
    set_get_delete,
    groups_and_members,
    keys_prints_ranges,
    import_reports_refused_lines_and_writes_the_rest,
    a_record_that_is_too_large_does_not_stop_an_import,
    raw_records_rejects_and_notices,
    topics_are_ensured_and_described,
    topics_are_listed_and_deleted,
    lists_are_restricted_by_group_and_prefix,
    tables_are_printed_or_refused,
    numbers_may_be_negative_and_doubtful_times_are_reported,
    a_reader_that_closes_the_pipe_early_is_not_an_error,
);
