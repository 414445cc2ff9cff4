//! `ktables export`: a table as a file for programs that cannot call an API.

use std::fs;
use std::process::Command;

use ktables_tests::{RunningCommand, eventually, ktables, run, succeed};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A topic in a folder.
struct Topic(TempDir);

impl Topic {
    fn new(entries: &[(&str, &str)]) -> Self {
        let topic = Self(TempDir::new().unwrap());
        succeed(topic.command("topic").arg("ensure").args(topic.names()));
        entries.iter().for_each(|(key, value)| topic.set(key, value));
        topic
    }

    fn names(&self) -> [String; 4] {
        let log = format!("dir:{}", self.0.path().join("log").display());
        ["--log".to_owned(), log, "--topic".to_owned(), "t".to_owned()]
    }

    fn command(&self, name: &str) -> Command {
        ktables(&[name])
    }

    fn set(&self, key: &str, value: &str) {
        succeed(self.command("set").args([key, value]).args(self.names()));
    }

    fn export(&self, args: &[&str]) -> Command {
        let mut command = self.command("export");
        command.arg("--out").arg(self.out()).args(args).args(self.names());
        command
    }

    fn out(&self) -> std::path::PathBuf {
        self.0.path().join("out")
    }

    fn written(&self) -> String {
        fs::read_to_string(self.out()).unwrap_or_default()
    }
}

#[test]
fn a_file_has_the_entries_in_each_format() {
    let topic = Topic::new(&[("a", "{\"b\": [1]}"), ("c d", "\"it's\\n$HOME\""), ("E_1", "7")]);
    succeed(&mut topic.export(&[]));
    let object: Value = serde_json::from_str(&topic.written()).unwrap();
    assert_eq!(object, json!({ "a": { "b": [1] }, "c d": "it's\n$HOME", "E_1": 7 }));
    succeed(&mut topic.export(&["--format", "ndjson"]));
    assert_eq!(topic.written().lines().count(), 3);
    let env = run(&mut topic.export(&["--format", "env"]));
    assert_eq!(env.code, 1, "a key is no name");
    assert!(env.stderr.contains("key `c d` is left out"), "{}", env.stderr);
    topic.set("TEXT", "\"it's\\n$HOME\"");
    assert_eq!(run(&mut topic.export(&["--format", "env"])).code, 1);
    let script = ". \"$0\"; printf '%s|%s|%s' \"$a\" \"$E_1\" \"$TEXT\"";
    let shell = Command::new("sh").arg("-c").arg(script).arg(topic.out()).output().unwrap();
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), "{\"b\": [1]}|7|it's\n$HOME");
    let targets =
        Topic::new(&[("x", "{\"targets\": [\"h:1\"], \"labels\": {\"job\": \"j\"}}"), ("bad", "1")]);
    let exported = run(&mut targets.export(&["--format", "prometheus-sd"]));
    assert!(exported.code == 1 && exported.stderr.contains("`bad`"), "{}", exported.stderr);
    let written: Value = serde_json::from_str(&targets.written()).unwrap();
    assert_eq!(written, json!([{ "targets": ["h:1"], "labels": { "job": "j" } }]));
    let empty = Topic::new(&[]);
    succeed(&mut empty.export(&[]));
    assert_eq!(empty.written(), "{}\n");
}

#[test]
fn a_file_follows_the_table_and_a_command_runs_after_each_change() {
    let topic = Topic::new(&[("a", "1")]);
    let count = topic.0.path().join("count");
    // It fails until the file has a 2.
    let exec =
        format!("sh -c 'echo run >> \"{}\"; grep -q 2 \"{}\"'", count.display(), topic.out().display());
    let mut exporting = RunningCommand::start(&mut topic.export(&["--follow", "--exec", &exec]));
    let runs = || fs::read_to_string(&count).unwrap_or_default().lines().count();
    eventually("the command runs", || (runs() == 1).then_some(()));
    topic.set("b", "2");
    eventually("it runs again", || (runs() == 2).then_some(()));
    let object: Value = serde_json::from_str(&topic.written()).unwrap();
    assert_eq!(object, json!({ "a": 1, "b": 2 }));
    exporting.signal("TERM");
    assert_eq!(exporting.wait(), 0);
    let slow = run(&mut topic.export(&["--exec", "sleep 600", "--exec-timeout", "100ms"]));
    assert!(slow.code == 1 && slow.stderr.contains("was killed"), "{}", slow.stderr);
    assert_eq!(run(&mut topic.export(&["--exec", "'"])).code, 2);
    assert_eq!(run(&mut topic.export(&["--exec", " "])).code, 2);
    let missing = run(&mut topic.export(&["--exec", "no-such-program"]));
    assert!(missing.code == 1 && missing.stderr.contains("cannot be started"), "{}", missing.stderr);
}

#[test]
fn an_incomplete_table_replaces_nothing_unless_that_is_allowed() {
    let topic = Topic::new(&[("a", "1")]);
    fs::write(topic.out(), "before").unwrap();
    let config = topic.0.path().join("ktables.toml");
    let text = format!(
        "[logs.l]\nurl = \"{}\"\n[tables.t]\nlog = \"l\"\ntopic = \"t\"\nmemory_limit = \"1B\"\n",
        topic.names()[1]
    );
    fs::write(&config, text).unwrap();
    let export = |more: &[&str]| {
        let mut command = topic.command("export");
        command.arg("--out").arg(topic.out()).arg("--config").arg(&config).args([
            "-t",
            "t",
            "--catchup-timeout",
            "1s",
        ]);
        run(command.args(more))
    };
    let refused = export(&[]);
    assert_eq!((refused.code, &*topic.written()), (4, "before"), "{}", refused.stderr);
    assert_eq!(export(&["--allow-degraded"]).code, 4);
    assert_ne!(topic.written(), "before");
}
