//! `import` as a stream: it writes each line as soon as it is complete, and reports the result of every line.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use ktables_tests::{
    LogKind, Scratch, TOPIC, eventually, ktables, on_each_log, record, run_with_stdin, succeed,
};
use serde_json::{Value, json};

async fn complete_lines_are_written_while_the_input_pauses(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let mut import = scratch.ktables(&["import"]);
    let mut import = import.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = import.stdin.take().unwrap();
    for number in 0..3 {
        // The input also pauses within a line.
        write!(input, "{{\"key\":\"a\",\"value\":").unwrap();
        input.flush().unwrap();
        writeln!(input, "{number}}}").unwrap();
        input.flush().unwrap();
        eventually("the line is written", || {
            let got = ktables_tests::run(&mut scratch.ktables(&["get", "a"]));
            (got.stdout.trim_end() == number.to_string()).then_some(())
        });
    }
    drop(input);
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["lines"], &report["acknowledged"]), (&json!(3), &json!(3)));
}

on_each_log! {
    complete_lines_are_written_while_the_input_pauses,
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_counted_once() {
    let scratch = Scratch::new(1).await;
    let lines = "\u{feff}{\"key\":\"a\",\"value\":1}\n\n   \n{\"key\":\"b\",\"value\":2,\"expired\":true}\nnonsense\n\
                 {\"key\":\"c\",\"value\":3,\"expired\":false}";
    let counts = |args: &[&str]| {
        let imported = run_with_stdin(&mut scratch.ktables(&[&["import"], args].concat()), lines);
        assert_eq!(imported.code, 1, "{}", imported.stderr);
        assert!(
            imported.stderr.contains("byte-order mark") && imported.stderr.contains("line 5"),
            "{}",
            imported.stderr
        );
        imported.json().remove(0)
    };
    let expected = |acknowledged: u64, expired: u64| json!({"lines": 6, "acknowledged": acknowledged, "refused": 1, "expired": expired, "blank": 2, "interrupted": false});
    assert_eq!(counts(&[]), expected(2, 1));
    assert_eq!(succeed(&mut scratch.ktables(&["keys"])).json(), ["a", "c"]);
    assert_eq!(counts(&["--expired"]), expected(3, 0));
    assert_eq!(succeed(&mut scratch.ktables(&["keys"])).json(), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_interrupted_while_it_waits_reports_it() {
    let scratch = Scratch::new(1).await;
    scratch.write(vec![record("before", Some(b"1"))]).await;
    let lock = File::open(scratch.path().join(TOPIC).join("0/lock")).unwrap();
    lock.lock().unwrap();
    let mut import = scratch.ktables(&["import"]);
    let mut import =
        import.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = import.stdin.take().unwrap();
    writeln!(input, "{{\"key\":\"a\",\"value\":1}}").unwrap();
    drop(input);
    // The import waits for the lock when it is interrupted.
    let stat = || procfs::process::Process::new(i32::try_from(import.id()).unwrap()).unwrap();
    eventually("the import has opened the lock", || {
        let open = stat().fd().ok()?.filter_map(Result::ok);
        open.into_iter()
            .any(|fd| matches!(&fd.target, procfs::process::FDTarget::Path(path) if path.ends_with("0/lock")))
            .then_some(())
    });
    for _ in 0..2 {
        let kill = std::process::Command::new("kill").args(["-INT", &import.id().to_string()]).status();
        assert!(kill.unwrap().success());
        std::thread::yield_now();
    }
    let output = import.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(report["interrupted"], true, "{stderr}");
    assert_eq!(report["acknowledged"], 0, "{stderr}");
    assert_ne!(output.status.code(), Some(0));
    drop(lock);
    let help = succeed(&mut ktables(&["import", "--help"])).stdout;
    assert!(help.contains("Ctrl-C"), "{help}");
}
